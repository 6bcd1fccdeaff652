package repo_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"golang.org/x/crypto/argon2"
)

var updateKeys = flag.Bool("update-keys", false, "write the golden repository with bound key slots anew; only for a new format version")

// keysDir is a golden repository with a copy of config, two slots of version 2, and a
// snapshot.
const keysDir = "testdata/golden-v1-keys"

// keysVector has the values of a reader that opens slots of version 2.
type keysVector struct {
	Repository string            `json:"repository"`
	Master     hexBytes          `json:"master_key"`
	Slots      []boundSlotVector `json:"key_slots"`
}

type boundSlotVector struct {
	slotVector
	AD hexBytes `json:"info_associated_data"`
}

func makeKeys(t *testing.T) *memory.Backend {
	ctx := context.Background()
	be := memory.New()
	opts := recordOptions(90, time.Date(2026, 4, 1, 8, 0, 0, 0, time.UTC))
	r, err := repo.Create(ctx, be, []byte(goldenPassword), crypto.SlotInfo{Kind: crypto.PasswordSlot, Label: "golden"}, opts)
	if err != nil {
		t.Fatal(err)
	}
	_, recovery := goldenSecrets(t)
	if _, err := r.AddKey(ctx, recovery, crypto.SlotInfo{Kind: crypto.RecoverySlot}); err != nil {
		t.Fatal(err)
	}
	if err := r.LoadIndex(ctx); err != nil {
		t.Fatal(err)
	}
	s := &repo.Snapshot{Time: time.Date(2026, 4, 1, 7, 0, 0, 0, time.UTC), Device: repo.Device{UDID: repotest.UDID}}
	if err := repotest.StoreSnapshot(ctx, r, recordFiles(1), s, nil); err != nil {
		t.Fatal(err)
	}
	return be
}

// readKeys opens the slots step by step.
func readKeys(t *testing.T) keysVector {
	t.Helper()
	be := loadGoldenFrom(t, keysDir)
	password, recovery := goldenSecrets(t)
	master := repotest.MasterKey(t, be, password)
	v := keysVector{Repository: "repo/" + keysDir, Master: master[:]}
	for _, name := range repotest.FilesIn(t, be, repotest.KeysDir) {
		s := parseSlot(t, be, name)
		for _, secret := range [][]byte{password, recovery} {
			key := argon2.IDKey(secret, s.Salt, s.Time, s.MemoryKiB, s.Threads, 32)
			got, err := crypto.NewSealer(crypto.Key(key), nil).Open(nil, s.Master, []byte("snap v2 key slot master"))
			if err != nil {
				continue
			}
			ad := []byte("snap v2 key slot info")
			ad = binary.LittleEndian.AppendUint32(ad, s.Time)
			ad = binary.LittleEndian.AppendUint32(ad, s.MemoryKiB)
			ad = append(append(ad, s.Threads, byte(len(s.Salt))), s.Salt...)
			ad = append(ad, s.Master...)
			info, err := crypto.NewSealer(master.Derive(crypto.ForSlotInfo), nil).Open(nil, s.Info, ad)
			if err != nil || !bytes.Equal(got, master[:]) || s.Version != 2 {
				t.Fatalf("%s: %v", name, err)
			}
			v.Slots = append(v.Slots, boundSlotVector{slotVector{name, string(secret), key, string(info)}, ad})
		}
	}
	return v
}

// TestGoldenKeys opens a repository with slots of version 2 that an earlier version of
// the program wrote. Each has a copy of config.
func TestGoldenKeys(t *testing.T) {
	ctx := context.Background()
	if *updateKeys {
		writeGoldenTo(t, keysDir, makeKeys(t))
	}
	be := loadGoldenFrom(t, keysDir)
	v := readKeys(t)
	if len(v.Slots) != 2 {
		t.Fatalf("%d slots", len(v.Slots))
	}
	for _, s := range v.Slots {
		var info crypto.SlotInfo
		if err := json.Unmarshal([]byte(s.Info), &info); err != nil || !bytes.Equal(info.Config, repotest.Content(t, be)[repotest.ConfigName]) {
			t.Errorf("%s: %v, %+v", s.File, err, info)
		}
		r := repotest.MustOpenWith(t, be, []byte(s.Secret), repotest.SmallPacks(5))
		rep, err := r.Check(ctx, repo.CheckOptions{ReadData: 1, DryRun: true})
		if err != nil || !rep.Clean() || len(rep.Problems)+len(rep.Unreferenced) > 0 || rep.Snapshots != 1 {
			t.Errorf("check: %+v, %v", rep, err)
		}
		if k, err := r.RenewKey(ctx); k != nil || err != nil {
			t.Errorf("renewed: %+v, %v", k, err)
		}
	}
	if j, err := repo.JudgeConfig(ctx, be); err != nil || j.State != repo.ConfigGood {
		t.Errorf("%+v, %v", j, err)
	}
}
