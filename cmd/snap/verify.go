package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/stored"
	"github.com/snap-backup/snap/device/verify"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/keep"
	"github.com/spf13/cobra"
)

// verifyOne is the outcome of one snapshot.
type verifyOne struct {
	*verify.Report
	Device      string       `json:"device_name"`
	Time        time.Time    `json:"time"`        // of the backup
	Certificate *repo.FileID `json:"certificate"` // null if it could not be stored
}

// verifyResult is the output of verify.
type verifyResult struct {
	Passed    bool          `json:"passed"`
	Snapshots []verifyOne   `json:"snapshots"`
	Recent    []repo.FileID `json:"recent"` // left out, because they passed within --max-age
	Left      []repo.FileID `json:"left"`   // not verified completely, because --limit had passed
}

// verifyFlags are the flags of verify.
type verifyFlags struct {
	all    bool
	level  string
	maxAge keep.Duration
	limit  time.Duration
	source backupPassword
}

func (a *app) verifyCommand() *cobra.Command {
	v := verifyFlags{maxAge: keep.Duration{Days: 30}}
	cmd := &cobra.Command{
		Use:   "verify [SNAPSHOT|DEVICE]...",
		Short: "Verify that snapshots are sound backups that would restore",
		Long: `Judges snapshots as backups of a device: would a restore get everything back?
("snap check" finds out whether the repository's own files are intact.) Without
arguments it verifies the latest snapshot of each device. A DEVICE, by UDID or
name, means all of its snapshots.

--level quick takes seconds. It looks at lists and keys: whether all files are
there with the right sizes, whether manifests agree, and whether the keys fit.
--level full also reads all content: it decrypts every file, compares digests,
checks all databases with SQLite, and parses property lists. What a snapshot
shares with another that was read in the last 30 days (--max-age) is not read
again, so all snapshots of a month take little longer than one.

Encrypted backups need the backup password to check keys, and to look into
snapshots that were stored locked. It comes from the flags, SNAP_BACKUP_PASSWORD
or the repository ("snap device password set"); otherwise the report says what
was not checked.

Each outcome is stored as a certificate, which "snap show" lists. With --all or
a DEVICE, snapshots that passed in the last 30 days (--max-age) are left out.
--limit ends a full verification after a time; the next run continues there, as
it does after Ctrl-C.

If files of a backup are missing or damaged, the exit code is 3; if the
repository has lost them, 13. It is also 3 if the time limit ended before one
snapshot was verified completely, 15 if there are no snapshots, and 20 if the
given backup password opens none of the encrypted backups.`,
		Example: "  snap verify\n  snap verify --level full latest\n  snap verify --level full --all --limit 2h",
		RunE: func(cmd *cobra.Command, argv []string) error {
			if v.level != string(verify.Quick) && v.level != string(verify.Full) {
				return usageError{fmt.Errorf("--level is quick or full, not %q", v.level)}
			}
			if v.all && len(argv) > 0 {
				return usageError{errors.New("--all verifies all snapshots; leave out the arguments or --all")}
			}
			return orInterrupted(cmd.Context(), a.verify(cmd, &v, argv), "the results of the verified snapshots are kept, but not what was read of the one in progress; run the same command again; with --all or a DEVICE, it leaves out the snapshots that passed")
		},
	}
	v.source.register(cmd)
	f := cmd.Flags()
	f.BoolVar(&v.all, "all", false, "verify all snapshots")
	f.StringVar(&v.level, "level", string(verify.Quick), "`level` of the verification: quick or full")
	f.Var(keepDuration{&v.maxAge}, "max-age", "rely on what was verified in the last `duration`, such as 30d; 0h reads everything again")
	f.DurationVar(&v.limit, "limit", 0, "stop reading after this `duration`, such as 2h; the next run continues")
	return cmd
}

// verification is one run of verify.
type verification struct {
	*app
	r            *repo.Repo
	flags        *verifyFlags
	all          []*repo.Snapshot
	unread       int // records of snapshots that perhaps should be verified, and cannot be read
	certificates []*repo.Certificate
	since        time.Time // certificates before it do not count
	deadline     time.Time
	passwords    *bagOpener
	res          verifyResult
}

func (a *app) verify(cmd *cobra.Command, flags *verifyFlags, argv []string) error {
	ctx := cmd.Context()
	v := &verification{app: a, flags: flags, since: flags.maxAge.Before(a.now()), res: verifyResult{Snapshots: []verifyOne{}, Recent: []repo.FileID{}, Left: []repo.FileID{}}}
	if flags.limit > 0 {
		v.deadline = time.Now().Add(flags.limit)
	}
	var err error
	var unread []error
	if v.r, v.all, unread, err = a.openAll(cmd); err != nil {
		return err
	}
	chosen, listed, err := chooseToVerify(v.all, flags.all, a.deviceNames(a.specs(argv)))
	if err != nil {
		return err
	}
	if len(argv) == 0 || slices.ContainsFunc(chosen, func(s *repo.Snapshot) bool { return listed[s.ID] }) {
		v.unread = len(unread)
	}
	var damaged []error
	if v.certificates, damaged, err = v.r.Certificates(ctx); err != nil {
		return err
	}
	for _, err := range damaged {
		a.warn("%v", err)
	}
	given, err := flags.source.toTry(ctx, a)
	if err != nil {
		return err
	}
	v.passwords = &bagOpener{r: v.r, given: given, keys: map[[32]byte]*keybag.Keys{}}
	defer v.passwords.close()
	for _, s := range chosen {
		if err := v.one(ctx, s, listed[s.ID]); err != nil {
			return err
		}
	}
	if err := v.tryPassword(ctx, chosen); err != nil {
		return err
	}
	v.res.Passed = v.outcome() == nil
	if err := a.conclude(v.res, len(v.res.Left) > 0, v.printEnd); err != nil {
		return err
	}
	return v.outcome()
}

// chooseToVerify returns the snapshots that the arguments mean. Those of a device are
// sorted from new to old: content that an old one shares with a new one is then read only
// once. listed is true for a snapshot that was not named itself.
func chooseToVerify(all []*repo.Snapshot, every bool, argv []string) (chosen []*repo.Snapshot, listed map[repo.FileID]bool, err error) {
	listed = map[repo.FileID]bool{}
	add := func(list []*repo.Snapshot, many bool) {
		for _, s := range slices.Backward(list) {
			if !slices.Contains(chosen, s) {
				chosen = append(chosen, s)
				listed[s.ID] = many
			} else if !many {
				listed[s.ID] = false
			}
		}
	}
	for _, arg := range argv {
		s, err := repo.FindIn(all, arg)
		if err == nil {
			add([]*repo.Snapshot{s}, false)
			continue
		}
		list, derr := repo.OfDevice(all, arg)
		if errors.Is(err, repo.ErrNoSnapshot) && derr != nil {
			err = derr
		}
		if len(list) == 0 {
			return nil, nil, err
		}
		add(list, true)
	}
	if len(argv) == 0 {
		for _, list := range repo.ByDevice(all) {
			if !every {
				list = list[len(list)-1:]
			}
			add(list, every)
		}
	}
	return chosen, listed, nil
}

// one verifies a snapshot. It leaves out a listed one that passed recently.
func (v *verification) one(ctx context.Context, s *repo.Snapshot, listed bool) error {
	if listed && v.passed(s) {
		v.res.Recent = append(v.res.Recent, s.ID)
		return nil
	}
	// The first snapshot is always begun, so that each run gets further, however short the
	// time limit.
	if len(v.res.Snapshots) > 0 && !v.deadline.IsZero() && time.Now().After(v.deadline) {
		v.res.Left = append(v.res.Left, s.ID)
		return nil
	}
	p := &blob.Progress{}
	stop := v.showProgress(func() meter {
		m := transferMeter(p)
		m.phase = s.ID.Short() + ": " + m.phase
		return m
	})
	rep, err := verify.Verify(ctx, v.r, s, verify.Options{
		Level: verify.Level(v.flags.level), Workers: runtime.GOMAXPROCS(0), Progress: p, Deadline: v.deadline, Grace: verifyGrace,
		Unlock: v.passwords.unlock, Bases: verify.BasesOf(s, v.all, v.certificates, v.since),
	})
	stop()
	if err != nil {
		return err
	}
	out := verifyOne{Report: rep, Device: s.Device.Name, Time: s.Time}
	host, _ := os.Hostname()
	c := rep.Certificate(s, host, "snap "+version)
	c.Time = v.now().UTC()
	id, err := v.writeCertificate(ctx, c)
	switch {
	case err == nil:
		out.Certificate = &id
		if rep.LeftFiles > 0 && ctx.Err() != nil {
			return interruption{fmt.Sprintf("what was read is kept: %s of snapshot %s are left; run the same command again: it continues there", plural(rep.LeftFiles, "file"), s.ID.Short())}
		}
	case ctx.Err() != nil:
		return err
	case errors.Is(err, repo.ErrReadOnly):
		v.warn("the repository is read-only: no certificate is stored, so the next run reads everything again")
	default:
		v.warn("no certificate is stored: %v", err)
	}
	v.certificates = append(v.certificates, c)
	v.res.Snapshots = append(v.res.Snapshots, out)
	if rep.LeftFiles > 0 {
		v.res.Left = append(v.res.Left, s.ID)
	}
	if !v.json {
		if !v.quiet || !rep.Passed {
			v.describe(v.human(), s, rep)
		}
	}
	return nil
}

// After Ctrl-C a verification finishes the files that it is reading, if they take no longer
// than verifyGrace, and stores its certificate within certificateTime.
const (
	verifyGrace     = 10 * time.Second
	certificateTime = time.Minute
)

// writeCertificate stores a certificate, also after Ctrl-C.
func (v *verification) writeCertificate(ctx context.Context, c *repo.Certificate) (repo.FileID, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), certificateTime)
	defer cancel()
	return v.r.WriteCertificate(ctx, c)
}

// tryPassword tries a given password that has opened nothing yet, also on snapshots that
// were left out: a wrong password must be reported, and a right one must not.
func (v *verification) tryPassword(ctx context.Context, chosen []*repo.Snapshot) error {
	if v.passwords.given == nil {
		return nil
	}
	for _, s := range chosen {
		if v.passwords.fitted {
			return nil
		}
		if !s.Encrypted {
			continue
		}
		err := v.tryOn(ctx, s)
		if err != nil && !errors.Is(err, mobilesync.ErrNotUnlockable) && !errors.Is(err, repo.ErrDamaged) {
			return err
		}
	}
	return nil
}

func (v *verification) tryOn(ctx context.Context, s *repo.Snapshot) error {
	b, err := stored.Open(ctx, v.r, s)
	if err != nil {
		return err
	}
	defer b.Close()
	return v.passwords.unlock(ctx, b.Backup)
}

// passed reports whether a snapshot passed a complete verification, of this level or full,
// since v.since and has not failed a later one.
func (v *verification) passed(s *repo.Snapshot) bool {
	for _, c := range slices.Backward(repo.CertificatesOf(v.certificates, s)) {
		if c.Kind != repo.CertificateVerify || c.Root != s.Root || c.StoppedAt != nil || c.Locked {
			continue
		}
		if c.Result != repo.ResultPassed || c.OlderThan(v.since) {
			return false
		}
		if c.Level == v.flags.level || c.Level == repo.LevelFull {
			return true
		}
	}
	return false
}

func (v *verification) describe(w io.Writer, s *repo.Snapshot, rep *verify.Report) {
	verdict, c := "passed", good
	switch {
	case rep.Lost():
		verdict, c = "FAILED: the repository has lost files", bad
	case !rep.Passed:
		verdict, c = "FAILED", bad
	case rep.LeftFiles > 0:
		verdict, c = "not finished", caution
	}
	fmt.Fprintf(w, "%s  %s, backup of %s: %s (%s)\n", s.ID.Short(), clean(s.Device.Name), timeText(s.Time), paint(w, c, verdict), rep.Level)
	fmt.Fprintf(w, "          %s, %s", plural(rep.Files, "file"), bytesText(rep.Bytes))
	if rep.Level == verify.Full {
		fmt.Fprintf(w, "; read %s, %s", plural(rep.ReadFiles, "file"), bytesText(rep.ReadBytes))
		if rep.SharedFiles > 0 {
			fmt.Fprintf(w, "; %s verified before", count(rep.SharedFiles))
		}
		fmt.Fprintf(w, "; %s, %s", plural(rep.Databases, "database"), plural(rep.Plists, "property list"))
	}
	if rep.Bytes > 0 && (rep.DigestFiles > 0 || rep.Level == verify.Full) {
		fmt.Fprintf(w, "; digests cover %s, %d%% of the bytes", plural(rep.DigestFiles, "file"), rep.DigestBytes*100/rep.Bytes)
	}
	fmt.Fprintln(w)
	if len(rep.Losses) > 0 {
		shown := rep.Losses[:min(len(rep.Losses), maxNamed)]
		more := ""
		if n := len(rep.Losses) - len(shown); n > 0 {
			more = fmt.Sprintf(" and %s of files", plural(n, "more kind"))
		}
		fmt.Fprintf(w, "          would be lost: %s%s\n", clean(strings.Join(shown, ", ")), more)
	}
	for _, n := range rep.NotChecked {
		fmt.Fprintf(w, "          not checked: %s\n", clean(n))
	}
	v.describeFindings("snapshot "+s.ID.Short(), rep.Findings)
}

func (v *verification) printEnd(w io.Writer) {
	if n := len(v.res.Recent); n > 0 {
		were := "were"
		if n == 1 {
			were = "was"
		}
		fmt.Fprintf(w, "%s passed in the last %s and %s left out (--max-age)\n", plural(n, "snapshot"), v.flags.maxAge, were)
	}
	if n := len(v.res.Left); n > 0 {
		fmt.Fprintf(w, "the time limit has passed: %s left to verify; run the same command again to continue\n", plural(n, "snapshot"))
	}
	if len(v.res.Snapshots)+len(v.res.Recent)+len(v.res.Left) == 0 {
		fmt.Fprintln(w, "no snapshots")
	}
}

// Errors of verify.
var (
	errUnsound    = errors.New("files of the backup are missing or damaged, or the backup is incomplete")
	errLostBackup = errors.New("the repository has lost files of the backup")
	errUnread     = errors.New("not verified, since the record cannot be read")
	errUnverified = errors.New("the time limit ended before one snapshot was verified completely")
)

// outcome returns the error that decides the exit code.
func (v *verification) outcome() error {
	var lost, failed []string
	judged := len(v.res.Recent)
	for _, o := range v.res.Snapshots {
		if o.LeftFiles == 0 {
			judged++
		}
		if o.Lost() {
			lost = append(lost, o.Snapshot.Short())
		} else if !o.Passed {
			failed = append(failed, o.Snapshot.Short())
		}
	}
	switch {
	case len(lost) > 0:
		return fmt.Errorf("snapshot %s: %w", strings.Join(lost, ", "), errLostBackup)
	case v.unread > 0:
		return fmt.Errorf("%s: %w", plural(int64(v.unread), "snapshot"), errUnread)
	case len(failed) > 0:
		return fmt.Errorf("snapshot %s: %w", strings.Join(failed, ", "), errUnsound)
	case v.passwords.wrong != "" && !v.passwords.fitted:
		return wrongBackupPassword{v.passwords.wrong}
	case judged == 0 && len(v.res.Left) > 0:
		return errUnverified
	case judged == 0:
		return fmt.Errorf("nothing was verified: %w", repo.ErrNoSnapshot)
	}
	return nil
}

// bagOpener unlocks snapshots with the given password and those that the repository
// keeps, and never asks. Deriving a key takes seconds, so it is done once for each
// keybag.
type bagOpener struct {
	r      *repo.Repo
	given  [][]byte
	keys   map[[32]byte]*keybag.Keys // nil for a keybag that no password opens
	wrong  string                    // the device of a backup that none of the passwords in given opens
	fitted bool                      // given opened a backup
}

func (o *bagOpener) close() {
	for _, k := range o.keys {
		if k != nil {
			k.Destroy()
		}
	}
	clearAll(o.given)
}

func (o *bagOpener) unlock(ctx context.Context, b *mobilesync.Backup) error {
	bag := sha256.Sum256(b.KeyBag())
	if keys, ok := o.keys[bag]; ok {
		if keys == nil {
			return nil
		}
		return b.UnlockWith(keys)
	}
	kept, err := o.r.DevicePasswords(ctx, b.Device().UDID)
	if err != nil {
		return err
	}
	defer clearPasswords(kept)
	try := slices.Clone(o.given)
	for _, k := range kept {
		try = append(try, k.Password)
	}
	for i, pw := range try {
		keys, err := b.Unlock(ctx, pw, nil)
		if err == nil {
			o.keys[bag] = keys
			o.fitted = o.fitted || i < len(o.given)
			return nil
		}
		if !errors.Is(err, keybag.ErrWrongPassword) {
			return err
		}
		if i < len(o.given) {
			o.wrong = b.Device().Name
		}
	}
	o.keys[bag] = nil
	return nil
}
