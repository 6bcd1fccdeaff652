package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/snap-backup/snap/device/simulator/synthetic"
)

func snapTool() tool {
	return tool{
		name: snapName, version: []string{"version"},
		about: "defaults",
		env: func(p place) []string {
			return []string{"SNAP_REPOSITORY=" + p.repo, "SNAP_PASSWORD=" + secret, "SNAP_BACKUP_PASSWORD=" + synthetic.DefaultPassword}
		},
		create: func(place) [][]string { return [][]string{{"init"}} },
		store:  func(p place) []string { return []string{"import", "--tag", p.label, p.folder} },
		list: func(p place) []string {
			return []string{"snapshots", "--json", "--tag", p.label, "--device", p.folder}
		},
		parseID:  onlyID,
		giveBack: func(p place) []string { return []string{"materialize", p.id, p.target} },
		check:    func(place) []string { return []string{"check", "--read-data"} },
	}
}

var errNotOne = errors.New("not exactly one snapshot")

// onlyID reads a JSON list of snapshots, of snap, restic or kopia, and returns
// the ID of the only one in it.
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
