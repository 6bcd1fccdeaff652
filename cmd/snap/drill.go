package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/drill"
	"github.com/snap-backup/snap/device/drill/page"
	"github.com/snap-backup/snap/device/host"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/internal/filesystem"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// drillResult is the output of drill.
type drillResult struct {
	*repo.Certificate
	Stored  bool   `json:"stored"`          // the repository has the certificate
	Model   string `json:"model,omitempty"` // of the simulated device
	IOS     string `json:"ios,omitempty"`
	Storage int64  `json:"device_storage,omitempty"`
	Apps    int    `json:"apps,omitempty"` // that the device would install again
	Scratch int64  `json:"scratch_bytes"`
	Page    string `json:"page,omitempty"`   // the HTML file
	Folder  string `json:"folder,omitempty"` // that was kept
}

func (a *app) drillCommand() *cobra.Command {
	d := drillRun{a: a}
	cmd := &cobra.Command{
		Use:   "drill [SNAPSHOT]",
		Short: "Rehearse the restore of a snapshot without a phone",
		Long: `Restores a snapshot to a simulated device of the same model and iOS version,
over the real protocol. The device asks for everything, checks every byte, key,
digest and database, and refuses what a real device refuses. Content is checked
while it arrives and is not stored. Only the manifest and the databases are
held, one at a time: in memory, or beyond 16 MiB in a sealed temporary file. So
a drill needs room for the largest of them.

--to FOLDER rehearses materializing instead: it writes the backup folder into
FOLDER, reads it back, checks it in the same way, and removes it.

The repository keeps a certificate of what was checked and found. --certificate
FILE also writes it as an HTML page that prints on one sheet.

An encrypted snapshot needs its backup password, which the repository may keep
("snap device password set").

SNAPSHOT is the beginning of an ID, "latest" (the default), or "latest:DEVICE".`,
		Example: "  snap drill\n  snap drill latest:\"Anna's iPhone\" --certificate anna.html\n  snap drill --to /mnt/scratch",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			spec := "latest"
			if len(argv) > 0 {
				spec = argv[0]
			}
			return orInterrupted(cmd.Context(), d.run(cmd, spec), "nothing was changed, and nothing is left; run the same command again")
		},
	}
	d.source.register(cmd)
	f := cmd.Flags()
	f.StringVar(&d.to, "to", "", "rehearse materializing into this `folder` instead")
	f.BoolVar(&d.options.Keep, "keep", false, "with --to, keep the folder")
	f.StringVar(&d.options.IOS, "ios", "", "`version` of iOS of the simulated device instead of the snapshot's")
	f.StringVar(&d.storage, "storage", "", "storage `size` of the simulated device, such as 128GB (default: the smallest that is sold and has room)")
	f.StringVar(&d.certificate, "certificate", "", "also write the certificate as an HTML page to this `file`")
	cmd.MarkFlagsMutuallyExclusive("to", "ios")
	cmd.MarkFlagsMutuallyExclusive("to", "storage")
	return cmd
}

// drillRun is one run of the command.
type drillRun struct {
	a                        *app
	source                   backupPassword
	to, storage, certificate string
	options                  drill.Options
}

func (d *drillRun) run(cmd *cobra.Command, spec string) error {
	ctx := cmd.Context()
	if d.options.Keep && d.to == "" {
		return usageError{errors.New("--keep needs --to")}
	}
	var err error
	if d.options.Storage, err = parseStorage(d.storage); err != nil {
		return usageError{err}
	}
	if err := canWritePage(d.certificate); err != nil {
		return err
	}
	if d.to != "" {
		if err := checkTarget(d.to, false); err != nil {
			return fmt.Errorf("write the folder: %w", err)
		}
	}
	r, found, err := d.a.openToRead(cmd, spec)
	if err != nil {
		return err
	}
	o := &d.options
	o.Repo, o.Snapshot = r, found[0]
	if err := d.prepare(ctx); err != nil {
		return err
	}
	defer clear(o.Password)
	report, err := d.rehearse(ctx)
	if err != nil {
		return err
	}
	res := &drillResult{Certificate: report.Certificate(o), Model: report.Model, IOS: report.IOS, Storage: report.Storage,
		Apps: report.Apps, Scratch: report.Scratch, Folder: report.Dir}
	if report.Refusal != nil && !report.Lost() {
		// A refusal is about the simulated device, not about the snapshot.
		return advised{report.Refusal, "nothing was sent; the simulated device is the one that --ios and --storage describe"}
	}
	if err := d.keep(ctx, res); err != nil {
		return err
	}
	if err := d.a.conclude(res, !report.Passed(), func(w io.Writer) { d.a.describeDrill(w, o.Snapshot, res) }); err != nil {
		return err
	}
	switch {
	case report.Passed():
		return nil
	case report.Lost():
		return fmt.Errorf("snapshot %s: %w", o.Snapshot.ID.Short(), errLostBackup)
	}
	return fmt.Errorf("snapshot %s: %w", o.Snapshot.ID.Short(), errDrillFailed)
}

// errDrillFailed says that a device would not restore a snapshot completely.
var errDrillFailed = errors.New("it did not pass the drill: a device would refuse it or lack files")

// prepare completes the options.
func (d *drillRun) prepare(ctx context.Context) (err error) {
	a, o := d.a, &d.options
	h, err := a.newHost(nil, o.Repo, "")
	if err != nil {
		return err
	}
	o.Name, o.Program, o.Now, o.Random, o.Bytes, o.Workers = h.Name, h.Program, h.Now, rand.Reader, bytesText, runtime.GOMAXPROCS(0)
	if !o.Snapshot.Encrypted {
		return nil
	}
	var given bool
	o.Password, given, err = a.knownPassword(ctx, o.Repo, o.Snapshot, d.source)
	switch {
	case errors.Is(err, keybag.ErrMalformed):
		o.Password = []byte{} // no password opens this keybag, and the drill finds that
		return nil
	case err != nil || o.Password != nil:
		return err
	case given:
		return advised{wrongBackupPassword{o.Snapshot.Device.Name}, "nothing was changed; try the password that the device had when the snapshot was made"}
	case d.to == "" && a.canAsk():
		o.Password, err = a.askBackupPassword(ctx, o.Repo, o.Snapshot)
	}
	return err
}

func (d *drillRun) rehearse(ctx context.Context) (*drill.Report, error) {
	o := d.options
	if d.to != "" {
		o.Progress, o.Abandoned = &blob.Progress{}, d.a.describeAbandoned
		defer d.a.showProgress(func() meter { return transferMeter(o.Progress) })()
		return drill.Folder(ctx, o, d.to)
	}
	w := &drillWatch{total: o.Snapshot.Bytes}
	o.Observer = w
	defer d.a.showProgress(w.meter)()
	return drill.Device(ctx, o)
}

// keep stores the certificate and writes the page.
func (d *drillRun) keep(ctx context.Context, res *drillResult) error {
	o := &d.options
	_, err := o.Repo.WriteCertificate(ctx, res.Certificate)
	switch {
	case errors.Is(err, repo.ErrReadOnly):
		d.a.warn("the repository keeps no certificate of this drill, because it cannot be written to")
	case err != nil:
		return err
	default:
		res.Stored = true
	}
	if d.certificate == "" {
		return nil
	}
	location, err := d.a.location()
	if err == nil {
		location, err = filepath.Abs(location)
	}
	if err != nil {
		return err
	}
	s := o.Snapshot
	res.Page = d.certificate
	return writePage(d.certificate, &page.Data{Certificate: res.Certificate, Snapshot: s, Model: device.Model(s.Device.ProductType), Repository: location,
		ID: o.Repo.Config().ID, Bytes: bytesText, Time: timeText})
}

// parseStorage parses the storage size of a device, in units of 1000 as in shops.
func parseStorage(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	text, unit := strings.ToUpper(s), 1e9
	if number, ok := strings.CutSuffix(text, "TB"); ok {
		text, unit = number, 1e12
	}
	v, err := strconv.ParseFloat(strings.TrimSuffix(text, "GB"), 64)
	if v *= unit; err != nil || !(v >= 1e9 && v < math.MaxInt64/2) {
		return 0, fmt.Errorf("%q is not a storage size such as 128GB or 1TB", s)
	}
	return int64(v), nil
}

// canWritePage returns an error if a file cannot be written, so that this is noticed
// before the drill. It leaves no file behind.
func canWritePage(name string) error {
	if name == "" {
		return nil
	}
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return advised{fmt.Errorf("write the certificate: %s is not a regular file", name), "nothing was done; choose another name"}
	}
	if err := checkFolder(filepath.Dir(name)); err != nil {
		return fmt.Errorf("write the certificate: %w", err)
	}
	return nil
}

// writePage writes a page to a file that appears when it is complete. What a killed
// process has left of an earlier page is removed.
func writePage(name string, d *page.Data) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write the certificate: %w", err)
		}
	}()
	partial := partialPage(name)
	if err := os.Remove(partial); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err = page.Write(f, d); err == nil {
		err = filesystem.SyncIfSupported(f)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(partial, name)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(partial))
	}
	return err
}

// partialPage returns the name of a page that is not complete.
func partialPage(name string) string {
	return filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".partial")
}

// drillWatch keeps the progress of a drill.
type drillWatch struct {
	total int64

	mu       sync.Mutex
	phase    backup2.Phase
	progress backup2.Progress
}

var _ host.Observer = (*drillWatch)(nil)

func (w *drillWatch) Phase(p backup2.Phase) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.phase = p
}

func (w *drillWatch) Progress(p backup2.Progress) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.progress = p
}

func (*drillWatch) Warning(string) {}
func (*drillWatch) Remark(string)  {}
func (*drillWatch) Prompt(bool)    {}

func (w *drillWatch) meter() meter {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := meter{phase: string(w.phase)}
	if w.progress.Bytes > 0 {
		m.bytes, m.totalBytes = w.progress.Bytes, w.total
	}
	return m
}

func (a *app) describeDrill(w io.Writer, s *repo.Snapshot, res *drillResult) {
	verdict := paint(w, good, "passed the drill")
	if res.Result != repo.ResultPassed {
		verdict = paint(w, bad, "did not pass the drill")
	}
	fmt.Fprintf(w, "snapshot %s of %s (%s) %s\n", s.ID.Short(), clean(s.Device.Name), timeText(s.Time), verdict)
	how := "wrote the folder and read it back"
	if res.Level == repo.LevelDevice {
		how = fmt.Sprintf("restored to a simulated %s with iOS %s and %d GB", clean(res.Model), clean(res.IOS), res.Storage/1e9)
	}
	fmt.Fprintf(w, "%s: %s, %s; %s with digests, %s\n", how, plural(res.ReadFiles, "file"), bytesText(res.ReadBytes), count(res.DigestFiles), plural(res.Databases, "database"))
	for _, f := range res.Findings {
		sign := "-"
		if f.Consequence != repo.Remark {
			sign = paint(w, bad, "!")
		}
		fmt.Fprintf(w, "  %s %s\n", sign, clean(f.Text))
	}
	for _, text := range res.NotChecked {
		fmt.Fprintf(w, "  - not checked: %s\n", clean(text))
	}
	if res.Stored {
		fmt.Fprintf(w, "certificate %s\n", res.ID.Short())
	}
	if res.Folder != "" {
		fmt.Fprintf(w, "kept %s\n", res.Folder)
	}
	if res.Page != "" {
		fmt.Fprintf(w, "wrote %s\n", res.Page)
	}
}
