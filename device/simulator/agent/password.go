package agent

import (
	"bytes"
	"errors"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/mberror"
)

// changePassword sets, changes or removes the backup password.
func (t *session) changePassword(request map[string]any) error {
	dir, err := t.folderOf(request)
	if err != nil {
		return err
	}
	if err := t.beginUnlocked(); err != nil {
		return err
	}
	old, next := textOf(request["OldPassword"]), textOf(request["NewPassword"])
	if !bytes.Equal(old, t.agent.secret()) {
		return mberror.Of(mberror.Password)
	}
	if len(old) == 0 && len(next) == 0 {
		return mberror.Errorf(mberror.Generic, "neither an old nor a new password")
	}
	if err := t.reach(faults.StepKeybag); err != nil {
		return err
	}
	if err := t.rewrap(dir, old, next); err != nil {
		return err
	}
	t.agent.setPassword(next)
	return nil
}

// rewrap changes the password of the keybag in the backup on the host. The next backup
// can then be incremental.
func (t *session) rewrap(dir string, old, next []byte) error {
	// The agent downloads the keybag of an interrupted run, but leaves it under the old
	// password. The next run sends the files of the interrupted run again.
	if _, err := t.SmallFile(dir + "/Snapshot/" + mobilesync.ManifestPlist); err != nil {
		return err
	}
	path := dir + "/" + mobilesync.ManifestPlist
	raw, err := t.SmallFile(path)
	if err != nil || raw == nil || len(old) == 0 || len(next) == 0 {
		return err
	}
	manifest, err := plist.Dict(raw)
	if err != nil {
		return nil
	}
	if encrypted, _ := manifest["IsEncrypted"].(bool); !encrypted {
		return nil
	}
	bagBytes, _ := manifest["BackupKeyBag"].([]byte)
	bag, err := keybag.Parse(bagBytes)
	if err != nil {
		return nil
	}
	wrapped, err := bag.Rewrap(t.ctx, t.agent.stream("rewrap", t.agent.count), old, next)
	if errors.Is(err, keybag.ErrWrongPassword) {
		return nil // the backup has an older password; the next backup will be full
	}
	if err != nil {
		return err
	}
	manifest["BackupKeyBag"] = wrapped
	changed, err := plist.EncodeBinary(manifest)
	if err != nil {
		return err
	}
	if err := t.UploadBytes(path, changed); err != nil {
		return err
	}
	switch {
	case bytes.Equal(raw, t.agent.expected.plist):
		t.agent.expected.plist = changed
	case t.agent.expected.older[string(raw)]:
		t.agent.expected.older[string(changed)] = true
	}
	return nil
}

// textOf returns a password from its value in a request.
func textOf(v any) []byte {
	switch p := v.(type) {
	case string:
		return []byte(p)
	case []byte:
		return p
	}
	return nil
}
