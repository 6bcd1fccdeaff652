package main

func rsyncTool() tool {
	return tool{
		name: "rsync", version: []string{"--version"},
		about:  "a folder per day with hard links to unchanged files; no compression, encryption or check",
		env:    func(params) []string { return nil },
		create: func(params) [][]string { return nil },
		store: func(p params) []string {
			args := []string{"-aR"}
			if p.before != "" {
				args = append(args, "--link-dest", p.repo+"/"+p.before)
			}
			return append(args, p.folder, p.repo+"/"+p.label+"/")
		},
		restore: func(p params) []string {
			return []string{"-a", p.repo + "/" + p.label + "/" + p.folder, p.target + "/"}
		},
	}
}
