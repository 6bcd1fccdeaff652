package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"runtime"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/drill"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/device/verify"
	"github.com/snap-backup/snap/repo"
)

// prove verifies the newest snapshot of each device and drills that of the last device,
// which is encrypted. It shows the certificate of the drill.
func (d *demo) prove(ctx context.Context, res *demoResult) error {
	list, _, err := d.repo.Snapshots(ctx)
	if err != nil {
		return err
	}
	var last *repo.Snapshot
	for _, dev := range d.lab.Devices() {
		own, err := repo.OfDevice(list, dev.UDID())
		if err != nil {
			return err
		}
		if len(own) == 0 {
			continue // the new device
		}
		last = own[len(own)-1]
		c, err := d.verifyFully(ctx, last)
		if err != nil {
			return err
		}
		res.Certificates = append(res.Certificates, c)
	}
	c, err := d.drill(ctx, last)
	if err != nil {
		return err
	}
	res.Certificates = append(res.Certificates, c)
	return nil
}

func (d *demo) verifyFully(ctx context.Context, s *repo.Snapshot) (*repo.Certificate, error) {
	keys := &bagOpener{r: d.repo, keys: map[[32]byte]*keybag.Keys{}}
	defer keys.close()
	rep, err := verify.Verify(ctx, d.repo, s, verify.Options{Level: verify.Full, Workers: runtime.GOMAXPROCS(0), Unlock: keys.unlock, Progress: &blob.Progress{}})
	if err != nil {
		return nil, err
	}
	if !rep.Passed {
		return nil, fmt.Errorf("snapshot %s of %s: %w", s.ID.Short(), s.Device.Name, errUnsound)
	}
	d.say("verify: snapshot %s of %s passed: %s read, %s and %s checked", s.ID.Short(), clean(s.Device.Name), plural(rep.ReadFiles, "file"),
		plural(rep.Databases, "database"), plural(rep.Plists, "property list"))
	c := rep.Certificate(s, d.host.Name, d.host.Program)
	c.Time = d.a.now().UTC()
	_, err = d.repo.WriteCertificate(ctx, c)
	return c, err
}

func (d *demo) drill(ctx context.Context, s *repo.Snapshot) (*repo.Certificate, error) {
	o := drill.Options{
		Repo: d.repo, Snapshot: s, Temp: d.dir, Name: d.host.Name, Program: d.host.Program, Now: d.a.now, Random: rand.Reader, Bytes: bytesText,
	}
	if s.Encrypted {
		o.Password = []byte(synthetic.DefaultPassword)
	}
	report, err := drill.Device(ctx, o)
	if err != nil {
		return nil, err
	}
	if !report.Passed() {
		return nil, fmt.Errorf("snapshot %s of %s: %w", s.ID.Short(), s.Device.Name, errDrillFailed)
	}
	res := &drillResult{Certificate: report.Certificate(&o), Model: report.Model, IOS: report.IOS, Storage: report.Storage}
	if _, err := d.repo.WriteCertificate(ctx, res.Certificate); err != nil {
		return nil, err
	}
	res.Stored = true
	if !d.a.json {
		fmt.Fprint(d.a.human(), "drill: ")
		d.a.describeDrill(d.a.human(), s, res)
	}
	return res.Certificate, nil
}
