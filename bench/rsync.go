package main

func rsyncTool() tool {
	return tool{
		name: "rsync", version: []string{"--version"},
		about:  "a folder per day, hard links for what did not change; neither compressed nor encrypted, and nothing to check it against",
		env:    func(place) []string { return nil },
		create: func(place) [][]string { return nil },
		store: func(p place) []string {
			args := []string{"-aR"}
			if p.before != "" {
				args = append(args, "--link-dest", p.repo+"/"+p.before)
			}
			return append(args, p.folder, p.repo+"/"+p.label+"/")
		},
		giveBack: func(p place) []string {
			return []string{"-a", p.repo + "/" + p.label + "/" + p.folder, p.target + "/"}
		},
	}
}
