package main

func borgTool() tool {
	archive := func(p params) string { return "::" + p.folder + "-" + p.label }
	return tool{
		name: "borg", version: []string{"--version"},
		about: "with repokey-blake2, -C auto,zstd (default: lz4) and a local cache",
		env: func(p params) []string {
			return []string{"BORG_REPO=" + p.repo, "BORG_PASSPHRASE=" + secret, "BORG_BASE_DIR=" + p.home}
		},
		create:  func(params) [][]string { return [][]string{{"init", "-e", "repokey-blake2"}} },
		store:   func(p params) []string { return []string{"create", "-C", "auto,zstd", archive(p), p.folder} },
		restore: func(p params) []string { return []string{"extract", archive(p)} },
		check:   func(params) []string { return []string{"check", "--verify-data"} },
		listAll: func(params) []string { return []string{"list", "--json"} },
	}
}
