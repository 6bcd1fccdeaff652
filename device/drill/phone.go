package drill

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/device/simulator/agent"
	"github.com/snap-backup/snap/device/simulator/mberror"
	"github.com/snap-backup/snap/internal/memconn"
	"github.com/snap-backup/snap/internal/scratch"
)

// phone is a simulated device, erased and ready for a restore.
type phone struct {
	*simulator.Device
	agent *agent.Agent
	mux   *device.Mux
	close func()
}

// soldStorage are the storage sizes of devices in bytes, and usable the percentage of
// them that iOS leaves.
var soldStorage = []int64{16e9, 32e9, 64e9, 128e9, 256e9, 512e9, 1e12, 2e12}

const usable = 90

// storage returns the storage of the simulated device and how much of it is free, in
// bytes.
func (o *Options) storage() (total, free int64) {
	total = o.Storage
	for i := 0; o.Storage == 0 && i < len(soldStorage); i++ {
		if total = soldStorage[i]; total/100*usable >= o.Snapshot.Bytes {
			break
		}
	}
	return total, total / 100 * usable
}

func (o *Options) ios() string {
	if o.IOS != "" {
		return o.IOS
	}
	return o.Snapshot.Device.ProductVersion
}

// newPhone connects a simulated device to a simulated usbmuxd, which only this process
// can reach.
func (o *Options) newPhone(ctx context.Context, r agent.Rehearsal) (*phone, error) {
	total, free := o.storage()
	d := o.Snapshot.Device
	p := &phone{Device: simulator.NewDevice(simulator.Spec{
		UDID: d.UDID, Name: d.Name, ProductType: d.ProductType, ProductVersion: o.ios(), BuildVersion: d.BuildVersion,
		SerialNumber: d.SerialNumber, Capacity: uint64(total), Available: uint64(free), Now: o.Now,
		PlainText: true, // no byte leaves the process
	})}
	var err error
	if p.agent, err = agent.Attach(p.Device, agent.Options{Rehearsal: r, Clock: o.Now, Version: 400}); err != nil {
		return nil, err
	}
	mux, listener := simulator.New(), memconn.Listen()
	if err := mux.Trust(p.Device); err != nil {
		return nil, err
	}
	mux.Attach(p.Device, simulator.USB)
	// The device lives longer than ctx, so that the host can end the session after an
	// interruption.
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = mux.Serve(ctx, listener) // the only error is that of ctx
	}()
	p.mux = device.OpenFunc("the drill", listener.Dial)
	p.close = sync.OnceFunc(func() { stop(); <-served })
	return p, nil
}

// rehearsal judges what the simulated device receives.
type rehearsal struct {
	*judge
	ended bool
	fatal error // the drill cannot go on, which says nothing about the backup
}

// verdict returns err. If err is not a refusal of the backup, verdict also keeps it in
// fatal.
func (r *rehearsal) verdict(err error) error {
	var refusal *mberror.Error
	if err != nil && !errors.As(err, &refusal) && r.fatal == nil {
		r.fatal = err
	}
	return err
}

var _ agent.Rehearsal = (*rehearsal)(nil)

// manifestFile is the scratch of Manifest.db.
type manifestFile struct {
	*scratch.File
	r *rehearsal
}

func (m *manifestFile) Write(p []byte) (int, error) {
	n, err := m.File.Write(p)
	return n, m.r.verdict(err)
}

func (m *manifestFile) Close() error {
	m.r.scratch = max(m.r.scratch, m.OnDisk())
	return m.File.Close()
}

// Scratch implements agent.Rehearsal.
func (r *rehearsal) Scratch() (agent.Scratch, error) {
	return &manifestFile{r.opts.newScratch(), r}, nil
}

// Manifest implements agent.Rehearsal.
func (r *rehearsal) Manifest(db io.ReaderAt, size int64) error {
	damaged, err := r.manifest(db, size)
	if err == nil && damaged {
		err = mberror.Errorf(mberror.Damaged, "%s is damaged", mobilesync.ManifestDB)
	}
	return r.verdict(err)
}

// Begin implements agent.Rehearsal.
func (r *rehearsal) Begin(records *manifest.Records, keys *keybag.Keys) error {
	r.records, r.keys, r.encrypted = records, keys, keys != nil
	r.noteAnomalies()
	return nil
}

// File implements agent.Rehearsal.
func (r *rehearsal) File(rec *manifest.Record, stored io.Reader) error {
	damage, err := r.file(rec, stored)
	if isReadError(err) {
		return nil // the host reports it
	}
	if err != nil || damage == "" {
		return r.verdict(err)
	}
	return mberror.Errorf(mberror.Damaged, "%s/%s: %s", rec.Domain, rec.RelativePath, damage)
}

// Missing implements agent.Rehearsal. judgeMissing decides at the end whether missing
// files are damage.
func (r *rehearsal) Missing(rec *manifest.Record) error {
	if i, ok := r.records.ByFileID(rec.FileID); ok {
		r.missing = append(r.missing, i)
	}
	return nil
}

// End implements agent.Rehearsal.
func (r *rehearsal) End() error {
	r.ended = true
	damaged, err := r.judgeMissing()
	if err == nil && damaged {
		err = mberror.Errorf(mberror.Damaged, "Manifest references files not in backup: %d", len(r.missing))
	}
	return r.verdict(err)
}
