package record

import (
	"slices"
	"strings"
)

// Consequence says what a finding means for a backup.
type Consequence string

// The consequences of a finding.
const (
	// Remark: nothing follows; the backup can be restored completely.
	Remark Consequence = "remark"
	// Damage: files of the backup are missing, wrong or cannot be opened.
	Damage Consequence = "damage"
	// Incomplete: the device did not finish the backup, or the backup changed
	// while it was read.
	Incomplete Consequence = "incomplete"
)

const (
	// MaxFindingNames bounds how many names a finding in a snapshot's record has.
	MaxFindingNames = 20
	// maxFindingName and maxFindingText bound the bytes of a stored name and text.
	maxFindingName = 4 << 10
	maxFindingText = 1 << 10
)

// Finding is one thing that was found in a backup.
type Finding struct {
	Kind        string      `json:"kind"` // a stable name
	Consequence Consequence `json:"consequence"`
	Count       int64       `json:"count,omitempty"` // of affected files; 0 if the finding is not about files
	Names       []string    `json:"names,omitempty"` // of affected files; perhaps not of all
	Text        string      `json:"text"`            // a sentence for people, without a full stop
}

// Damaged reports whether files of the backup are missing, wrong or cannot be
// opened. A reader treats a consequence that it does not know as damage.
func (s *Snapshot) Damaged() bool {
	return slices.ContainsFunc(s.Findings, func(f Finding) bool {
		return f.Consequence != Remark && f.Consequence != Incomplete
	})
}

// MoreNames reports whether findings have more names than a record holds.
func MoreNames(findings []Finding) bool {
	return slices.ContainsFunc(findings, func(f Finding) bool { return len(f.Names) > MaxFindingNames })
}

// Clip returns the findings with at most n names each. It cuts long names and texts.
func Clip(findings []Finding, n int) []Finding {
	if findings == nil {
		return nil
	}
	out := []Finding{}
	for _, f := range findings {
		var names []string
		for _, name := range f.Names[:min(len(f.Names), n)] {
			names = append(names, clip(name, maxFindingName))
		}
		f.Names, f.Text = names, clip(f.Text, maxFindingText)
		out = append(out, f)
	}
	return out
}

// clip cuts a text that has more than n bytes, and marks the cut.
func clip(s string, n int) string {
	const mark = "…"
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-len(mark)], "") + mark
}
