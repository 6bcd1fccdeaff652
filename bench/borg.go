package main

func borgTool() tool {
	archive := func(p place) string { return "::" + p.folder + "-" + p.label }
	return tool{
		name: "borg", version: []string{"--version"},
		about: "repokey-blake2, -C auto,zstd (its default is lz4), with its local cache",
		env: func(p place) []string {
			return []string{"BORG_REPO=" + p.repo, "BORG_PASSPHRASE=" + secret, "BORG_BASE_DIR=" + p.home}
		},
		create:   func(place) [][]string { return [][]string{{"init", "-e", "repokey-blake2"}} },
		store:    func(p place) []string { return []string{"create", "-C", "auto,zstd", archive(p), p.folder} },
		giveBack: func(p place) []string { return []string{"extract", archive(p)} },
		check:    func(place) []string { return []string{"check", "--verify-data"} },
	}
}
