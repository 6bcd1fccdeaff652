package main

func kopiaTool() tool {
	return tool{
		name: "kopia", version: []string{"--version"},
		about: "with --compression zstd (default: none), a policy that keeps all snapshots, and a local cache, which the check also reads",
		env: func(p params) []string {
			return []string{
				"KOPIA_PASSWORD=" + secret, "KOPIA_CONFIG_PATH=" + p.home + "/kopia.config",
				"KOPIA_CACHE_DIRECTORY=" + p.home + "/cache", "KOPIA_LOG_DIR=" + p.home + "/log",
				"KOPIA_CHECK_FOR_UPDATES=false", "KOPIA_USE_KEYRING=false",
			}
		},
		create: func(p params) [][]string {
			return [][]string{
				{"repository", "create", "filesystem", "--path", p.repo},
				// By default kopia removes old snapshots.
				{"policy", "set", "--global", "--compression", "zstd", "--keep-latest", "100000"},
			}
		},
		store: func(p params) []string { return []string{"snapshot", "create", "--tags", "day:" + p.label, p.folder} },
		list: func(p params) []string {
			return []string{"snapshot", "list", "--json", "--tags", "day:" + p.label, p.folder}
		},
		parseID: onlyID,
		restore: func(p params) []string { return []string{"snapshot", "restore", p.id, p.target + "/" + p.folder} },
		check:   func(params) []string { return []string{"snapshot", "verify", "--verify-files-percent", "100"} },
		listAll: func(params) []string { return []string{"snapshot", "list", "--all", "--json"} },
	}
}
