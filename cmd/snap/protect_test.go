package main

import (
	"context"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/snap-backup/snap/repo/backend/s3test"
	"github.com/snap-backup/snap/repo/protect"
)

// guidePolicy returns the policy of docs/guide.md for a user. versitygw does not know its
// condition, which limits what a user can cost.
func guidePolicy(t *testing.T, user string) string {
	text, err := os.ReadFile("../../docs/guide.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?s)\{"Version": "2012-10-17".*?\}\}\}\]\}`).Find(text)
	var policy map[string]any
	if err := json.Unmarshal(found, &policy); err != nil {
		t.Fatalf("the policy of docs/guide.md is %q: %v", found, err)
	}
	statements, _ := policy["Statement"].([]any)
	for _, s := range statements {
		s, _ := s.(map[string]any)
		delete(s, "Condition")
		s["Principal"] = map[string]any{"AWS": []string{user}}
	}
	out, err := json.Marshal(policy)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(out), "family-backups", "bucket")
}

func TestParsePeriod(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30d": 720 * time.Hour, "36h": 36 * time.Hour, "1d": 24 * time.Hour, "36500d": 36500 * 24 * time.Hour,
		"": 0, "d": 0, "0d": 0, "-1d": 0, "30": 0, "1.5d": 0, "30 d": 0, "36501d": 0, "4294967295h": 0, "99999999999d": 0, "5m": 0,
	} {
		got, err := parsePeriod(text)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("parsePeriod(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
}

// attacker has an access key, and knows the protocol of the store.
type attacker struct {
	t      *testing.T
	client *minio.Client
}

func newAttacker(t *testing.T, addr, id, secret string) *attacker {
	client, err := minio.New(addr, &minio.Options{Creds: credentials.NewStaticV4(id, secret, "")})
	if err != nil {
		t.Fatal(err)
	}
	return &attacker{t, client}
}

// objects lists objects, or their versions if the access key may do that.
func (a *attacker) objects(versions bool) (list []minio.ObjectInfo) {
	for o := range a.client.ListObjectsIter(a.t.Context(), "bucket", minio.ListObjectsOptions{Recursive: true, WithVersions: versions}) {
		if o.Err != nil && versions {
			a.t.Logf("list versions: %v", o.Err)
			return nil
		}
		if o.Err != nil {
			a.t.Fatal(o.Err)
		}
		list = append(list, o)
	}
	return list
}

// destroy removes and replaces all that it can.
func (a *attacker) destroy() {
	ctx := context.Background()
	removed := 0
	for _, o := range a.objects(true) {
		err := a.client.RemoveObject(ctx, "bucket", o.Key, minio.RemoveObjectOptions{VersionID: o.VersionID})
		name := strings.TrimPrefix(o.Key, "phones/")
		if protect.Includes(name) && !o.IsDeleteMarker && o.Size > 4 && err == nil { // not junk
			a.t.Errorf("a version of %s could be removed", name)
		}
		if err == nil {
			removed++
		}
	}
	for i, o := range a.objects(false) {
		if i%3 == 0 {
			if _, err := a.client.PutObject(ctx, "bucket", o.Key, strings.NewReader("junk"), 4, minio.PutObjectOptions{}); err != nil {
				a.t.Fatal(err)
			}
		}
		if i%3 == 1 || i%6 == 0 || strings.Contains(o.Key, "/config") {
			if err := a.client.RemoveObject(ctx, "bucket", o.Key, minio.RemoveObjectOptions{}); err != nil {
				a.t.Fatal(err)
			}
		}
		if i%3 == 2 {
			if _, err := a.client.PutObject(ctx, "bucket", o.Key, strings.NewReader(""), 0, minio.PutObjectOptions{}); err != nil {
				a.t.Fatal(err)
			}
			if err := a.client.RemoveObject(ctx, "bucket", o.Key, minio.RemoveObjectOptions{}); err != nil {
				a.t.Fatal(err)
			}
		}
	}
	a.t.Logf("%d versions were removed", removed)
}

// hidePack deletes one pack.
func (a *attacker) hidePack() {
	for _, o := range a.objects(false) {
		if strings.HasPrefix(o.Key, "phones/packs/") {
			if err := a.client.RemoveObject(a.t.Context(), "bucket", o.Key, minio.RemoveObjectOptions{}); err != nil {
				a.t.Fatal(err)
			}
			return
		}
	}
	a.t.Fatal("there is no pack")
}

// now returns a time in whole seconds that is after all that was done.
func (a *attacker) now() string {
	next := time.Now().Truncate(time.Second).Add(time.Second)
	time.Sleep(time.Until(next))
	return next.Format(time.DateTime)
}

// Somebody with the keys of a client, or even with those of the owner, deletes and replaces
// everything in the store. Everything comes back.
func TestInteropObjectLock(t *testing.T) {
	g := s3test.Start(t)
	as := func(id, secret string) {
		t.Setenv("AWS_ACCESS_KEY_ID", id)
		t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	}
	as(s3test.ID, s3test.Secret)
	s := newStoreRig(t, "s3:http://"+g.Addr+"/bucket/phones")
	s.has(s.run(0, "init", "--lock", "30d", "-o", "s3.make-bucket=true"), "protects each file for 30 days")
	g.AddUser("client", "clientsecret")
	owner := newAttacker(t, g.Addr, s3test.ID, s3test.Secret)
	if err := owner.client.SetBucketPolicy(t.Context(), "bucket", guidePolicy(t, "client")); err != nil {
		t.Fatal(err)
	}

	as("client", "clientsecret") // the rights of the guide suffice
	s.run(0, "generate", "-q", "--scale", "tiny", "--devices", "2", "--days", "1", s.path("folders"))
	s.run(0, "import", "-q", s.path("folders"))
	s.run(exitError, "protect") // but not for this
	as(s3test.ID, s3test.Secret)

	before := s.run(0, "snapshots", "--json")
	var p struct{ Protected, Unprotected protect.Count }
	if err := json.Unmarshal([]byte(s.run(0, "protect", "--json")), &p); err != nil || p.Protected.Files < 8 || p.Unprotected.Files != 0 {
		t.Errorf("protect: %+v, %v", p, err)
	}
	good := owner.now()
	owner.hidePack()
	s.has(s.run(exitDamaged, "check"), `"snap protect" shows when some were hidden`)
	s.has(s.run(0, "protect", "--restore-hidden", good), "brought back 1 file,")
	s.run(0, "check")
	for _, a := range []*attacker{newAttacker(t, g.Addr, "client", "clientsecret"), owner} {
		good := a.now()
		a.destroy()
		s.comesBack(good, before)
	}
	s.comesBackAfterPrune(owner.now(), before)

	// A mirror in a bucket is protected, too.
	mirror := "s3:http://" + g.Addr + "/bucket/mirror"
	s.has(s.run(0, "protect", "-r", mirror, "--lock", "36h"), "for 36 hours")
	s.run(0, "mirror", mirror)
	if err := json.Unmarshal([]byte(s.run(0, "protect", "-r", mirror, "--json")), &p); err != nil || p.Protected.Files < 8 || p.Unprotected.Files != 0 {
		t.Errorf("protect the mirror: %+v, %v", p, err)
	}
	if err := owner.client.MakeBucket(t.Context(), "plain", minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	plain := "s3:http://" + g.Addr + "/plain/phones"
	s.has(s.run(exitError, "init", "-r", plain, "--lock", "30d"), "no repository was created")
	s.run(exitNoRepo, "snapshots", "-r", plain)
}

// comesBack fails unless an attack is noticed and what was attacked comes back.
func (s *storeRig) comesBack(good, before string) {
	s.t.Helper()
	s.run(exitDamaged, "snapshots")
	s.has(s.run(exitError, "protect"), "not protected") // the note in the store is gone, too
	out := s.run(exitDamaged, "protect", "--lock", "30d")
	s.has(out, "files that are put from now on are protected for 30 days (governance)")
	s.has(out, "config is hidden")
	s.has(out, "SNAPSHOTS")
	s.has(s.run(exitDamaged, "protect", "-n", "--restore-hidden", good), "would bring back")
	s.run(exitDamaged, "snapshots")
	s.has(s.run(0, "protect", "--restore-hidden", good), "brought back")
	s.run(0, "check", "--read-data")
	if after := s.run(0, "snapshots", "--json"); after != before {
		s.t.Errorf("the snapshots are %s, want %s", after, before)
	}
	s.has(s.run(0, "protect", "--restore-hidden", good), "brought back 0 files")
}

// comesBackAfterPrune fails unless a prune hides what it removes and does not come back to
// it, and what was forgotten comes back.
func (s *storeRig) comesBackAfterPrune(good, before string) {
	s.t.Helper()
	var snapshots []struct{ ID string }
	if err := json.Unmarshal([]byte(before), &snapshots); err != nil || len(snapshots) != 2 {
		s.t.Fatal(before, err)
	}
	s.has(s.run(0, "forget", snapshots[0].ID, "--allow-last", "--prune", "--max-unused", "0"), "until its protection ends")
	s.run(0, "prune", "--max-unused", "0")
	s.has(s.run(0, "prune", "--max-unused", "0"), "removed 0 packs")
	s.run(0, "check", "--read-data")
	s.run(0, "protect", "--restore-hidden", good)
	s.run(0, "check", "--read-data")
	if after := s.run(0, "snapshots", "--json"); after != before {
		s.t.Errorf("after a prune the snapshots are %s, want %s", after, before)
	}
}
