package main

// notCommands says what does the work of commands that similar programs have and snap does
// not. Their names are no typing errors of other names.
var notCommands = map[string]string{
	"search":      "\"snap find PATTERN\" finds files by name in all snapshots",
	"mount":       "\"snap ls SNAPSHOT\" shows what is in a snapshot; \"snap extract SNAPSHOT PATTERN --to FOLDER\" writes files of it",
	"list":        "\"snap snapshots\" lists the snapshots, and \"snap key list\" the keys",
	"rewrite":     "a snapshot is never changed; \"snap tag\", \"snap note\" and \"snap pin\" change what is said about it",
	"recover":     "\"snap repair snapshots\" stores lost records of snapshots again",
	"self-update": "install a newer version over this one; \"snap version\" prints the version",
	"migrate":     "snap has one repository format, so there is nothing to migrate",
	"cache":       "the cache needs no care: it has at most 1 GiB, and its folder can be deleted at any time",
	"create":      "\"snap backup\" backs up a device, and \"snap import\" stores backup folders",
	"delete":      "\"snap forget SNAPSHOT\" removes a snapshot",
	"info":        "\"snap show SNAPSHOT\" describes a snapshot, and \"snap stats\" the repository",
	"compact":     "\"snap prune\" removes data that no snapshot needs",
}
