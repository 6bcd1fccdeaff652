package main

import "strconv"

func resticTool() tool {
	return tool{
		name: "restic", version: []string{"version"},
		about: "defaults (repository version 2, compression auto), with a local cache",
		env: func(p params) []string {
			return []string{"RESTIC_REPOSITORY=" + p.repo, "RESTIC_PASSWORD=" + secret, "RESTIC_CACHE_DIR=" + p.home + "/cache"}
		},
		create:  func(params) [][]string { return [][]string{{"init"}} },
		store:   func(p params) []string { return []string{"backup", "--tag", p.folder + "-" + p.label, p.folder} },
		list:    func(p params) []string { return []string{"snapshots", "--json", "--tag", p.folder + "-" + p.label} },
		parseID: onlyID,
		restore: func(p params) []string { return []string{"restore", p.id, "--target", p.target} },
		check:   func(params) []string { return []string{"check", "--read-data"} },
		listAll: func(params) []string { return []string{"snapshots", "--json"} },

		createDistant: func() []string { return []string{"init"} },
		structure:     func() []string { return []string{"check"} },
		prune: func(keep int) []string {
			return []string{"forget", "--group-by", "paths", "--keep-last", strconv.Itoa(keep), "--prune"}
		},
	}
}
