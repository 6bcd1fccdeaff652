package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// showResult is the output of show.
type showResult struct {
	snapshotJSON
	// Findings are the findings of the snapshot, with the names of all affected files.
	Findings []repo.Finding `json:"findings"`
	// StoredSize is the space that the snapshot's files take in the repository.
	// UniqueSize is the part of it that no other snapshot needs.
	StoredSize   int64               `json:"stored_size"`
	UniqueSize   int64               `json:"unique_size"`
	Certificates []*repo.Certificate `json:"certificates"` // oldest first
}

func (a *app) showCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show SNAPSHOT",
		Short: "Show everything about one snapshot",
		Long: `Shows a snapshot: its device, where it came from, how much space it takes and
shares with other snapshots, what was found in the backup, and the result of
each verify and drill.

SNAPSHOT is the beginning of an ID, "latest", or "latest:DEVICE". --json names
all files that a finding affects.`,
		Example: "  snap show latest\n  snap show --json \"latest:Anna's iPhone\"",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			r, found, err := a.openToRead(cmd, argv[0])
			if err != nil {
				return err
			}
			s := found[0]
			res, lost, err := a.show(ctx, r, s)
			if err != nil {
				return err
			}
			if err := a.print(res, func(w io.Writer) { printShow(w, res) }); err != nil || lost == nil {
				return err
			}
			return fmt.Errorf("the space that snapshot %s takes is not known exactly: %w", s.ID.Short(), lost)
		},
	}
}

// show collects what is known of a snapshot. lost is not nil if the repository has lost
// some of the snapshot, so that its space is not known.
func (a *app) show(ctx context.Context, r *repo.Repo, s *repo.Snapshot) (res *showResult, lost, err error) {
	list, damaged, err := r.Snapshots(ctx)
	if err != nil {
		return nil, nil, err
	}
	certificates, unusable, err := r.Certificates(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, err := range slices.Concat(damaged, unusable) {
		a.warn("%v", err)
	}
	res = &showResult{snapshotJSON: snapshotsJSON([]*repo.Snapshot{s}, certificates)[0], Certificates: repo.CertificatesOf(certificates, s)}
	if res.Certificates == nil {
		res.Certificates = []*repo.Certificate{}
	}
	res.Findings = allNames(s.Findings, res.Certificates)
	res.UniqueSize, res.StoredSize, err = r.UniqueSize(ctx, s, list)
	if errors.Is(err, repo.ErrDamaged) {
		return res, err, nil
	}
	return res, nil, err
}

// allNames returns findings with the names that the certificate of the import has.
func allNames(findings []repo.Finding, certificates []*repo.Certificate) []repo.Finding {
	out := append([]repo.Finding{}, findings...)
	for _, c := range certificates {
		if c.Kind != repo.CertificateImport {
			continue
		}
		for i := range out {
			for _, f := range c.Findings {
				if f.Kind == out[i].Kind && f.Consequence == out[i].Consequence && f.Count == out[i].Count && len(f.Names) > len(out[i].Names) {
					out[i].Names = f.Names
				}
			}
		}
	}
	return out
}

func printShow(w io.Writer, res *showResult) {
	s := res.snapshotJSON
	line := func(label, format string, args ...any) {
		fmt.Fprintf(w, "%-14s%s\n", label, clean(fmt.Sprintf(format, args...)))
	}
	d := s.Device
	line("snapshot", "%s", s.ID)
	if s.Original != nil {
		line("first ID", "%s", s.Original)
	}
	line("device", "%s (%s, iOS %s)", d.Name, device.Model(d.ProductType), cmp.Or(d.ProductVersion, "unknown"))
	line("UDID", "%s", d.UDID)
	if d.SerialNumber != "" {
		line("serial number", "%s", d.SerialNumber)
	}
	line("backup of", "%s", timeText(s.Time))
	line("stored", "%s", storedText(s.Snapshot))
	if t := repo.LastLook(res.Certificates, s.Snapshot); !t.IsZero() {
		line("unchanged", "until the import of %s", timeText(t))
	}
	line("source", "%s", sourceText(s.Snapshot))
	line("encrypted", "%s", encryptedText(s.Snapshot))
	line("content", "%s, %s", plural(s.Files, "file"), bytesText(s.Bytes))
	line("space", "%s in the repository, of which only this snapshot needs %s; storing the snapshot added %s",
		bytesText(res.StoredSize), bytesText(res.UniqueSize), bytesText(s.StoredBytes))
	if len(s.Tags) > 0 {
		line("tags", "%s", strings.Join(s.Tags, ", "))
	}
	if s.Pin != nil {
		line("pinned", "since %s %s", timeText(s.Pin.Since), s.Pin.Reason)
	}
	if s.Note != "" {
		line("note", "%s", s.Note)
	}
	printFindings(w, s.Snapshot, res.Findings)
	printCertificates(w, s.Snapshot, res.Certificates)
}

func storedText(s *repo.Snapshot) string {
	text := timeText(s.StoredAt)
	if s.Host != "" {
		text += " by " + s.Host
	}
	if s.Program != "" {
		text += " with " + s.Program
	}
	return text
}

func sourceText(s *repo.Snapshot) string {
	switch {
	case s.CopiedFrom != nil:
		return fmt.Sprintf("copy of snapshot %s of repository %s", s.CopiedFrom.Snapshot.Short(), s.CopiedFrom.Repository)
	case s.Source.Kind == repo.FromDevice:
		return "the device itself"
	case s.Source.Archived:
		return "the archived backup folder " + s.Source.Path
	}
	return "the backup folder " + s.Source.Path
}

func encryptedText(s *repo.Snapshot) string {
	switch {
	case !s.Encrypted:
		return "not by the device"
	case s.Unlocked:
		return "by the device; stored decrypted; a restore encrypts it again"
	}
	return "by the device; stored locked, without the backup password"
}

func printFindings(w io.Writer, s *repo.Snapshot, findings []repo.Finding) {
	state, c := "complete", good
	switch {
	case s.Lost != nil:
		state, c = "the repository has lost a part of the snapshot", bad
	case s.Damaged():
		state, c = "files are missing or damaged", bad
	case !s.Complete:
		state, c = "not complete", bad
	}
	fmt.Fprintf(w, "\n%-14s%s\n", "findings", paint(w, c, state))
	for _, f := range findings {
		lead := "  - "
		if f.Consequence != repo.Remark {
			lead = "  " + paint(w, bad, "!") + " "
		}
		fmt.Fprintf(w, "%s%s\n", lead, clean(f.Text))
		if len(f.Names) < 2 {
			continue
		}
		names := f.Names[1:min(len(f.Names), maxNamed)]
		for _, name := range names {
			fmt.Fprintf(verbatim(w), "      %s\n", clean(name))
		}
		if more := f.Count - 1 - int64(len(names)); more > 0 {
			fmt.Fprintf(w, "      and %s more; --json names all\n", count(more))
		}
	}
	for _, p := range s.Problems {
		fmt.Fprintf(w, "  - %s\n", clean(p))
	}
}

func printCertificates(w io.Writer, s *repo.Snapshot, certificates []*repo.Certificate) {
	var rows []string
	for _, c := range certificates {
		if c.Kind == repo.CertificateImport {
			continue
		}
		rows = append(rows, fmt.Sprintf("  %s\t%s\t%s\t%s\t%s\t%s", timeText(c.Time), c.Kind, c.Level, c.Result, plural(len(c.Findings), "finding"), clean(c.Host)))
	}
	if len(rows) == 0 {
		fmt.Fprintf(w, "\n%-14snever; \"snap verify\" and \"snap drill\" show whether a restore would succeed\n", "verified")
		return
	}
	fmt.Fprintln(w)
	table(w, "  DATE\tKIND\tLEVEL\tRESULT\tFINDINGS\t<HOST", rows)
}
