package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/snap-backup/snap/device/simulator/synthetic"
)

func snapTool() tool {
	return tool{
		name: snapName, version: []string{"version"},
		about: "defaults",
		env: func(p params) []string {
			return []string{"SNAP_REPOSITORY=" + p.repo, "SNAP_PASSWORD=" + secret, "SNAP_BACKUP_PASSWORD=" + synthetic.DefaultPassword}
		},
		create: func(params) [][]string { return [][]string{{"init"}} },
		store:  func(p params) []string { return []string{"import", "--tag", p.label, p.folder} },
		list: func(p params) []string {
			return []string{"snapshots", "--json", "--tag", p.label, "--device", p.folder}
		},
		parseID: onlyID,
		restore: func(p params) []string { return []string{"materialize", p.id, p.target} },
		check:   func(params) []string { return []string{"check", "--read-data"} },
		listAll: func(params) []string { return []string{"snapshots", "--json"} },
		history: snapHistory,

		createDistant: func() []string { return []string{"init", "-o", "s3.make-bucket=true"} },
		structure:     func() []string { return []string{"check"} },
		prune:         func(keep int) []string { return []string{"forget", "--keep-last", strconv.Itoa(keep), "--prune"} },
	}
}

var errNotOne = errors.New("not exactly one snapshot")

// onlyID parses a JSON list of one snapshot of snap, restic or kopia and returns its ID.
func onlyID(printed []byte) (string, error) {
	var list []struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(printed, &list); err != nil {
		return "", fmt.Errorf("list of snapshots: %w", err)
	}
	if len(list) != 1 || list[0].ID == "" {
		return "", fmt.Errorf("list of %d snapshots: %w", len(list), errNotOne)
	}
	return list[0].ID, nil
}
