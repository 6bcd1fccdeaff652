package backup2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/snap-backup/snap/device/protocol/devicelink"
)

var (
	sha1A = strings.Repeat("ab", 20)
	sha1B = strings.Repeat("cd", 20)
)

// firstBackup sends the requests of a small first backup in the order of a device.
func firstBackup(p *phone) error {
	q, err := p.request()
	if err != nil {
		return err
	}
	if want := map[string]any{"MessageName": "Backup", "TargetIdentifier": udid}; !reflect.DeepEqual(q, want) {
		return fmt.Errorf("the request is %v", q)
	}
	got, s, err := p.download(udid + "/Status.plist")
	if err != nil {
		return err
	}
	wantPayload := map[string]any{udid + "/Status.plist": map[string]any{"DLFileErrorCode": int64(devicelink.StatusNoFile), "DLFileErrorString": "No such file or directory"}}
	if s.Code != devicelink.StatusMulti || !reflect.DeepEqual(s.Payload, wantPayload) || len(got) != 1 || got[0].failure == "" {
		return fmt.Errorf("a missing Status.plist: %v %+v", got, s)
	}
	if s, err := p.ask("DLMessageGetFreeDiskSpace", map[string]any{}); err != nil || s.Code != 0 || s.Payload != int64(1<<40) {
		return fmt.Errorf("space: %+v %v", s, err)
	}
	for _, name := range []string{"", "/ab", "/Snapshot", "/Snapshot/ab", "/Snapshot/cd", "/Snapshot"} {
		if err := p.wantStatus(0, "DLMessageCreateDirectory", udid+name, map[string]any{}); err != nil {
			return err
		}
	}
	a, b := udid+"/Snapshot/ab/"+sha1A, udid+"/Snapshot/cd/"+sha1B
	for _, files := range [][]string{
		{udid + "/Status.plist", "uploading"},
		{a, "first", b, strings.Repeat("b", 100_000), a, "again"},
		{udid + "/Snapshot/Manifest.plist", "manifest"},
		{udid + "/Snapshot/Manifest.db", "database"},
		{udid + "/Snapshot/cd/empty", ""},
		{udid + "/Status.plist", "moving"},
	} {
		if s, err := p.upload(files...); err != nil || s.Code != 0 || !reflect.DeepEqual(s.Payload, map[string]any{}) {
			return fmt.Errorf("upload %s: %+v %v", files[0], s, err)
		}
	}
	moves := map[string]any{a: udid + "/ab/" + sha1A, b: udid + "/cd/" + sha1B, udid + "/Snapshot/Manifest.plist": udid + "/Manifest.plist"}
	if err := p.wantStatus(0, "DLMessageMoveItems", moves, map[string]any{}, 99.0); err != nil {
		return err
	}
	if err := p.wantStatus(0, "DLMessageMoveFiles", map[string]any{udid + "/Snapshot/Manifest.db": udid + "/Manifest.db"}, map[string]any{}, 99.5); err != nil {
		return err
	}
	if err := p.wantStatus(0, "DLMessageRemoveItems", []string{udid + "/Snapshot"}, map[string]any{}, 100.0); err != nil {
		return err
	}
	if err := p.wantStatus(0, "DLMessageRemoveFiles", []string{udid + "/Manifest.mbdx"}, map[string]any{}, 100.0); err != nil {
		return err
	}
	if s, err := p.upload(udid+"/Status.plist", "finished"); err != nil || s.Code != 0 {
		return fmt.Errorf("Status.plist: %+v %v", s, err)
	}
	got, s, err = p.download(udid+"/Status.plist", udid+"/Manifest.db")
	if want := []sent{{udid + "/Status.plist", "finished", ""}, {udid + "/Manifest.db", "database", ""}}; err != nil || s.Code != 0 || !slices.Equal(got, want) {
		return fmt.Errorf("verification: %v %+v %v", got, s, err)
	}
	s, err = p.ask("DLContentsOfDirectory", udid, map[string]any{})
	if err != nil || s.Code != 0 || s.Text != "" {
		return fmt.Errorf("listing: %+v %v", s, err)
	}
	names, _ := s.Payload.(map[string]any)
	if got := slices.Sorted(maps.Keys(names)); !slices.Equal(got, []string{"Manifest.db", "Manifest.plist", "Status.plist", "ab", "cd"}) {
		return fmt.Errorf("names: %v", got)
	}
	if kind := names["ab"].(map[string]any)["DLFileType"]; kind != "DLFileTypeDirectory" {
		return fmt.Errorf("a folder is listed as %v", kind)
	}
	if file := names["Manifest.db"].(map[string]any); file["DLFileType"] != "DLFileTypeRegular" || file["DLFileSize"] != int64(8) {
		return fmt.Errorf("a file is listed as %v", file)
	}
	return p.respond(0, nil)
}

func TestFirstBackup(t *testing.T) {
	noLeaks(t)
	d := dir(t.TempDir())
	l, err := rig{t: t, script: func(p *phone) error {
		if err := firstBackup(p); err != nil {
			return err
		}
		m, err := p.ReadMessage()
		if err == nil && m.Name() != devicelink.DisconnectName {
			err = fmt.Errorf("the host ends with %v", m)
		}
		return err
	}}.backup(d)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		udid + "/Status.plist": "finished", udid + "/Manifest.plist": "manifest", udid + "/Manifest.db": "database",
		udid + "/ab/" + sha1A: "again", udid + "/cd/" + sha1B: strings.Repeat("b", 100_000),
	}
	if got := d.tree(t); !maps.Equal(got, want) {
		t.Errorf("the folder holds %q", slices.Sorted(maps.Keys(got)))
	}
	if want := []Phase{PhaseWaiting, PhasePreparing, PhaseReceiving, PhaseFinishing, PhaseVerifying}; !slices.Equal(l.phases, want) {
		t.Errorf("phases %q", l.phases)
	}
	if l.last.Files != 11 || l.last.Percent != 12 || l.last.Bytes < 100_000 || len(l.warnings) != 0 {
		t.Errorf("progress %+v, warnings %q", l.last, l.warnings)
	}
}

// TestAnswers sends unusual requests. The host must answer them, and the backup must
// continue.
func TestAnswers(t *testing.T) {
	good := udid + "/Status.plist"
	tests := []struct {
		name    string
		do      func(*phone) error
		folder  overridden
		warning string // text in one of the warnings; empty if there are none
	}{
		{name: "unknown", warning: `"DLMessageDance"`, do: func(p *phone) error { return p.wantStatus(-1, "DLMessageDance", 1, 2) }},
		{name: "nothing but a name", warning: "malformed", do: func(p *phone) error { return p.wantStatus(-1, "DLMessageMoveItems") }},
		{name: "ping", do: func(p *phone) error { return p.WriteMessage("DLMessagePing", "are you there?") }},
		{name: "other message to process", do: func(p *phone) error {
			return p.WriteMessage(devicelink.ProcessMessage, map[string]any{"MessageName": "Chat"})
		}},
		{name: "malformed", warning: "malformed", do: func(p *phone) error {
			for _, v := range [][]any{
				{"DLMessageCreateDirectory", 5}, {"DLContentsOfDirectory"}, {"DLMessageRemoveItems", []any{good, 5}},
				{"DLMessageMoveItems", map[string]any{good: 5}}, {"DLMessageCopyItem", good}, {"DLMessagePurgeDiskSpace", "much"}, {"DLMessagePurgeDiskSpace", -5},
			} {
				if err := p.wantStatus(-1, v...); err != nil {
					return err
				}
			}
			if err := p.WriteMessage("DLMessageDownloadFiles", 5); err != nil {
				return err
			}
			if name, err := p.ReadName(); name != "" || err != nil {
				return fmt.Errorf("%q %v", name, err)
			}
			s, err := p.ReadStatus()
			if err == nil && s.Code != -1 {
				err = fmt.Errorf("%+v", s)
			}
			return err
		}},
		{name: "empty lists", do: func(p *phone) error {
			if got, s, err := p.download(); len(got) != 0 || s.Code != 0 || err != nil {
				return fmt.Errorf("%v %v %v", got, s, err)
			}
			if s, err := p.upload(); s.Code != 0 || err != nil {
				return fmt.Errorf("%v %v", s, err)
			}
			return p.wantStatus(0, "DLMessageRemoveItems", []string{})
		}},
		{name: "missing folder", do: func(p *phone) error {
			s, err := p.ask("DLContentsOfDirectory", udid+"/none")
			if err == nil && (s.Code != 0 || !reflect.DeepEqual(s.Payload, map[string]any{})) {
				err = fmt.Errorf("%+v", s)
			}
			return err
		}},
		{name: "unreadable folder", warning: "list", folder: overridden{list: func() ([]Item, error) { return nil, errors.New("fault") }}, do: func(p *phone) error {
			return p.wantStatus(devicelink.StatusIO, "DLContentsOfDirectory", udid)
		}},
		{name: "missing source of a move", warning: "move", do: func(p *phone) error {
			return p.wantStatus(devicelink.StatusNoFile, "DLMessageMoveItems", map[string]any{udid + "/none": udid + "/x"})
		}},
		{name: "a file with a folder's name", warning: "make folder", folder: overridden{change: func(string, string) error { return fs.ErrExist }}, do: func(p *phone) error {
			return p.wantStatus(devicelink.StatusExists, "DLMessageCreateDirectory", udid+"/x")
		}},
		{name: "what cannot be removed", warning: "fault", folder: overridden{change: func(string, string) error { return errors.New("fault") }}, do: func(p *phone) error {
			return p.wantStatus(devicelink.StatusIO, "DLMessageRemoveItems", []string{good})
		}},
		{name: "files that fail on the device", warning: `could not read all of "/var/x"`, do: func(p *phone) error {
			if err := p.WriteMessage("DLMessageUploadFiles", map[string]any{}, -1.0, 5); err != nil {
				return err
			}
			for _, reason := range []string{"\x1b[31mfault", ""} {
				if err := p.names(udid + "/x"); err != nil {
					return err
				}
				p.SendFile(iotest.TimeoutReader(strings.NewReader(""))) // sends an empty file without an error
				if err := p.names(udid + "/x"); err != nil {
					return err
				}
				if err := p.SendError(devicelink.KindDeviceError, reason); err != nil {
					return err
				}
			}
			p.EndNames()
			s, err := p.ReadStatus()
			if err == nil && s.Code != 0 {
				err = fmt.Errorf("%+v", s)
			}
			return err
		}},
		{name: "downloads of all kinds", warning: "fault", folder: overridden{open: func(p string) (io.ReadCloser, error) {
			switch name := p[len(udid)+1:]; name {
			case "long":
				return io.NopCloser(strings.NewReader(strings.Repeat("x", 3*devicelink.MaxFrame+1))), nil
			case "empty":
				return io.NopCloser(strings.NewReader("")), nil
			case "none":
				return nil, fmt.Errorf("look: %w", fs.ErrNotExist)
			case "closed":
				return nil, errors.New("fault")
			case "cut":
				return io.NopCloser(io.MultiReader(strings.NewReader("begin"), iotest.ErrReader(errors.New("fault")))), nil
			case "short":
				return io.NopCloser(io.MultiReader(strings.NewReader("begin"), iotest.ErrReader(io.ErrUnexpectedEOF))), nil
			case "eof":
				return io.NopCloser(io.MultiReader(strings.NewReader("begin"), iotest.ErrReader(fmt.Errorf("unpack: %w", io.EOF)))), nil
			}
			return nil, errors.New("never asked for")
		}}, do: func(p *phone) error {
			names := []string{"long", "none", "empty", "closed", "cut", "short", "eof", "long"}
			for i := range names {
				names[i] = udid + "/" + names[i]
			}
			names = append(names, "../x")
			got, s, err := p.download(names...)
			if err != nil || len(got) != len(names) || s.Code != devicelink.StatusMulti || s.Text != "Multi status" {
				return fmt.Errorf("%d files, %+v, %v", len(got), s, err)
			}
			codes := map[string]int64{}
			for path, v := range s.Payload.(map[string]any) {
				codes[strings.TrimPrefix(path, udid+"/")] = v.(map[string]any)["DLFileErrorCode"].(int64)
			}
			if want := map[string]int64{"none": -6, "closed": -11, "cut": -11, "short": -11, "eof": -11, "../x": -1}; !maps.Equal(codes, want) {
				return fmt.Errorf("codes %v", codes)
			}
			for i, f := range got {
				if failed := codes[strings.TrimPrefix(f.path, udid+"/")] != 0; f.path != names[i] || failed != (f.failure != "") {
					return fmt.Errorf("file %d arrived as %q with the failure %q", i, f.path, f.failure)
				}
				if strings.HasSuffix(f.path, "/long") && len(f.content) != 3*devicelink.MaxFrame+1 {
					return fmt.Errorf("long has %d bytes", len(f.content))
				}
			}
			return nil
		}},
		{name: "room was made", folder: overridden{purge: func(want int64) (int64, error) { return want + 1, nil }}, do: func(p *phone) error {
			s, err := p.ask("DLMessagePurgeDiskSpace", int64(1<<33), 4)
			if err == nil && (s.Code != 0 || s.Payload != int64(1<<33+1)) {
				err = fmt.Errorf("%+v", s)
			}
			return err
		}},
		{name: "no room", warning: "which is not possible", do: func(p *phone) error { return p.wantStatus(-1, "DLMessagePurgeDiskSpace", 5, 4) }},
		{name: "unknown room", warning: "free space", folder: overridden{space: func() (int64, error) { return 0, errors.New("fault") }}, do: func(p *phone) error {
			return p.wantStatus(-1, "DLMessageGetFreeDiskSpace")
		}},
		{name: "negative room", folder: overridden{space: func() (int64, error) { return -5, nil }}, do: func(p *phone) error {
			s, err := p.ask("DLMessageGetFreeDiskSpace")
			if err == nil && (s.Code != 0 || s.Payload != int64(0)) {
				err = fmt.Errorf("%+v", s)
			}
			return err
		}},
		{name: "backup archived", warning: "renamed or copied a backup", do: func(p *phone) error {
			if s, err := p.upload(udid+"/x", "x"); err != nil || s.Code != 0 {
				return fmt.Errorf("%+v %v", s, err)
			}
			aside := udid + "-20240131-123456"
			if err := p.wantStatus(-1, "DLMessageRemoveItems", []string{aside}); err != nil {
				return err // an archive of another session must not be removed
			}
			if err := p.wantStatus(0, "DLMessageMoveItems", map[string]any{udid: aside}); err != nil {
				return err
			}
			if s, err := p.ask("DLContentsOfDirectory", aside); err != nil || len(s.Payload.(map[string]any)) != 1 {
				return fmt.Errorf("%+v %v", s, err)
			}
			if err := p.wantStatus(0, "DLMessageCopyItem", aside+"/x", aside+"/y"); err != nil {
				return err
			}
			return p.wantStatus(0, "DLMessageRemoveItems", []string{aside})
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			noLeaks(t)
			d := dir(t.TempDir())
			test.folder.Folder = d
			l, err := rig{t: t, script: asking(test.do)}.backup(test.folder)
			if err != nil {
				t.Error(err)
			}
			text := strings.Join(l.warnings, "\n")
			if (test.warning == "") != (text == "") || !strings.Contains(text, test.warning) || strings.Contains(text, "\x1b") {
				t.Errorf("warnings %q", text)
			}
		})
	}
}

// failing is an Upload whose methods fail as the test chooses.
type failing struct {
	io.Writer
	write, commit    error
	short            bool
	aborted, written *int
}

func (f failing) Write(b []byte) (int, error) {
	*f.written += len(b)
	if f.short {
		return len(b) - 1, nil
	}
	return len(b), f.write
}
func (f failing) Commit() error { return f.commit }
func (f failing) Abort()        { *f.aborted++ }

// TestUploadsThatFail checks that the device is told of the failure and that both
// sides stay in step. The backup must fail even if the device reports success.
func TestUploadsThatFail(t *testing.T) {
	full := fmt.Errorf("write: %w", ErrNoSpace)
	fault := errors.New("fault")
	tests := []struct {
		name string
		u    failing
		err  error // of Create
		code int64
		// creates is the expected number of calls of Create for the three files.
		creates, aborts int
	}{
		{name: "full at create", err: full, code: devicelink.StatusNoSpace, creates: 1},
		{name: "full in the middle", u: failing{write: full}, code: devicelink.StatusNoSpace, creates: 1, aborts: 1},
		{name: "full at the end", u: failing{commit: full}, code: devicelink.StatusNoSpace, creates: 1, aborts: 1},
		{name: "fault at create", err: fault, code: devicelink.StatusIO, creates: 3},
		{name: "fault in the middle", u: failing{write: fault}, code: devicelink.StatusIO, creates: 3, aborts: 3},
		{name: "fault at the end", u: failing{commit: fault}, code: devicelink.StatusIO, creates: 3, aborts: 3},
		{name: "short", u: failing{short: true}, code: devicelink.StatusIO, creates: 3, aborts: 3},
	}
	for _, test := range tests {
		for _, response := range []int{0, 105} {
			t.Run(fmt.Sprint(test.name, response), func(t *testing.T) {
				noLeaks(t)
				var creates, aborts, written int
				test.u.aborted, test.u.written = &aborts, &written
				f := overridden{Folder: dir(t.TempDir()), create: func(context.Context, string) (Upload, error) {
					creates++
					return test.u, test.err
				}}
				_, err := rig{t: t, script: func(p *phone) error {
					if _, err := p.request(); err != nil {
						return err
					}
					content := strings.Repeat("x", 1<<20)
					s, err := p.upload(udid+"/a", content, udid+"/b", content, udid+"/c", content)
					if err != nil || s.Code != test.code {
						return fmt.Errorf("%+v %v", s, err)
					}
					return p.respond(response, nil)
				}}.backup(f)
				if creates != test.creates || aborts != test.aborts {
					t.Errorf("%d files were tried, %d aborted", creates, aborts)
				}
				cause := fault
				switch {
				case test.code == devicelink.StatusNoSpace:
					cause = ErrNoSpace
				case test.u.short:
					cause = io.ErrShortWrite
				}
				var told *DeviceError
				if !errors.Is(err, cause) || errors.As(err, &told) != (response != 0) {
					t.Errorf("error %v", err)
				}
			})
		}
	}
}

// TestFull checks that the existing Status.plist is hidden until the device writes a
// new one.
func TestFull(t *testing.T) {
	d := dir(t.TempDir())
	status := udid + "/Status.plist"
	d.put(t, status, "finished")
	s, wait := rig{t: t, script: func(p *phone) error {
		q, err := p.request()
		if o, _ := q["Options"].(map[string]any); err != nil || o["ForceFullBackup"] != true {
			return fmt.Errorf("%v %v", q, err)
		}
		if _, s, err := p.download(status); err != nil || s.Code != devicelink.StatusMulti {
			return fmt.Errorf("%+v %v", s, err)
		}
		if s, err := p.upload(status, "uploading"); err != nil || s.Code != 0 {
			return fmt.Errorf("%+v %v", s, err)
		}
		if got, _, err := p.download(status); err != nil || got[0].content != "uploading" {
			return fmt.Errorf("%v %v", got, err)
		}
		return p.respond(0, nil)
	}}.session()
	err := s.Backup(t.Context(), BackupRequest{UDID: udid, Full: true}, d, nil)
	s.Close()
	if derr := wait(); err != nil || derr != nil {
		t.Error(err, derr)
	}
}

// What the device says about its own errors is passed on, safe to print.
func TestComplaints(t *testing.T) {
	t.Parallel()
	s, wait := rig{t: t, script: func(p *phone) error {
		if _, err := p.request(); err != nil {
			return err
		}
		if err := p.WriteMessage("DLMessageUploadFiles", map[string]any{}, -1.0, 5); err != nil {
			return err
		}
		if err := p.names(udid + "/x"); err != nil {
			return err
		}
		if err := p.SendError(devicelink.KindDeviceError, "\x1b[31mfault"); err != nil {
			return err
		}
		p.EndNames()
		if s, err := p.ReadStatus(); err != nil || s.Code != 0 {
			return fmt.Errorf("%+v %v", s, err)
		}
		return p.respond(0, map[string]any{"ErrorDescription": "a file was left out"})
	}}.session()
	var got []Complaint
	q := BackupRequest{UDID: udid, Complain: func(c Complaint) { got = append(got, c) }}
	err := s.Backup(t.Context(), q, dir(t.TempDir()), nil)
	s.Close()
	if derr := wait(); err != nil || derr != nil {
		t.Error(err, derr)
	}
	if want := []Complaint{{udid + "/x", "/var/x", "\uFFFD[31mfault"}, {Text: "a file was left out"}}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestRestore(t *testing.T) {
	const source = "00008030-0123456789ABCDEF"
	data := source + "/ab/" + sha1A
	all := map[string]any{
		"RestoreSystemFiles": false, "RestoreShouldReboot": true, "RestoreDontCopyBackup": true, "RestorePreserveSettings": true, "RemoveItemsNotRestored": false,
	}
	changed := map[string]any{
		"RestoreSystemFiles": true, "RestoreShouldReboot": false, "RestoreDontCopyBackup": false, "RestorePreserveSettings": false, "RemoveItemsNotRestored": true, "Password": "secret",
	}
	// get downloads the file and sends percent as the progress of the device.
	get := func(p *phone, percent float64) error {
		if err := p.WriteMessage("DLMessageDownloadFiles", []string{data}, map[string]any{}, percent); err != nil {
			return err
		}
		if name, err := p.ReadName(); name != data || err != nil {
			return fmt.Errorf("%q %v", name, err)
		}
		if _, _, err := p.ReceiveFile(io.Discard); err != nil {
			return err
		}
		p.ReadName()
		_, err := p.ReadStatus()
		return err
	}
	tests := []struct {
		name    string
		q       RestoreRequest
		options map[string]any
		script  func(*phone) error
		result  RestoreResult
		kind    error
	}{
		{name: "defaults", options: all, script: func(p *phone) error {
			if err := get(p, 10); err != nil {
				return err
			}
			return p.respond(0, nil)
		}},
		{name: "all options", options: changed, q: RestoreRequest{
			Options:  RestoreOptions{SystemFiles: true, NoReboot: true, CopyBackup: true, ResetSettings: true, RemoveOthers: true},
			Password: []byte("secret"), ApplicationIDs: []string{"com.example"},
		}, script: func(p *phone) error {
			if err := p.wantStatus(0, "DLMessageCopyItem", source, source+"-20240131-123456"); err != nil {
				return err
			}
			return p.respond(0, nil)
		}},
		{name: "restart before the result", options: all, result: RestoreResult{Rebooted: true}, script: func(p *phone) error { return get(p, 99) }},
		{name: "restart, percentage unknown", options: all, result: RestoreResult{Rebooted: true}, script: func(p *phone) error { return get(p, 0) }},
		{name: "disconnects after the files", options: all, result: RestoreResult{Rebooted: true}, script: func(p *phone) error {
			if err := get(p, 100); err != nil {
				return err
			}
			return p.WriteMessage(devicelink.DisconnectName, "bye")
		}},
		{name: "cable pulled", options: all, kind: ErrLinkLost, script: func(p *phone) error { return get(p, 50) }},
		{name: "cable pulled before any file", options: all, kind: ErrLinkLost, script: func(*phone) error { return nil }},
		{name: "no restart was requested", options: map[string]any{
			"RestoreSystemFiles": false, "RestoreShouldReboot": false, "RestoreDontCopyBackup": true, "RestorePreserveSettings": true, "RemoveItemsNotRestored": false,
		}, q: RestoreRequest{Options: RestoreOptions{NoReboot: true}}, kind: ErrLinkLost, script: func(p *phone) error { return get(p, 99) }},
		{name: "silence", options: all, kind: ErrLinkLost, script: func(p *phone) error {
			if err := get(p, 99); err != nil {
				return err
			}
			p.ReadMessage() // until the host leaves
			return nil
		}},
		{name: "a missing file", options: all, result: RestoreResult{Missing: 1}, script: func(p *phone) error {
			if _, s, err := p.download(source + "/cd/" + sha1B); err != nil || s.Code != devicelink.StatusMulti {
				return fmt.Errorf("%+v %v", s, err)
			}
			return p.respond(0, nil)
		}},
		{name: "wrong password", options: all, kind: ErrWrongPassword, script: func(p *phone) error {
			return p.respond(207, map[string]any{"ErrorDescription": "Invalid password"})
		}},
		{name: "changes nothing", options: all, script: func(p *phone) error {
			for _, v := range [][]any{
				{"DLMessageRemoveItems", []string{data}}, {"DLMessageMoveItems", map[string]any{data: source + "/x"}},
				{"DLMessageCreateDirectory", source + "/x"}, {"DLMessageCopyItem", data, source + "/x"}, {"DLMessageMoveItems", map[string]any{source: source + "-20240131-123456"}},
			} {
				if err := p.wantStatus(-1, v...); err != nil {
					return err
				}
			}
			if s, err := p.upload(source+"/x", "x"); err != nil || s.Code != -1 {
				return fmt.Errorf("%+v %v", s, err)
			}
			return p.respond(0, nil)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			noLeaks(t)
			synctest.Test(t, func(t *testing.T) {
				d := dir(t.TempDir())
				d.put(t, data, "content")
				s, wait := rig{t: t, o: Options{Idle: 500 * time.Millisecond}, script: func(p *phone) error {
					q, err := p.request()
					if err != nil {
						return err
					}
					if q["MessageName"] != "Restore" || q["TargetIdentifier"] != udid || q["SourceIdentifier"] != source || !reflect.DeepEqual(q["Options"], test.options) {
						return fmt.Errorf("the request is %v", q)
					}
					if apps, ok := q["ApplicationIDs"]; ok != (test.q.ApplicationIDs != nil) || ok && !reflect.DeepEqual(apps, []any{"com.example"}) {
						return fmt.Errorf("apps %v", apps)
					}
					return test.script(p)
				}}.session()
				test.q.Target, test.q.Source = udid, source
				result, err := s.Restore(t.Context(), test.q, d, nil)
				s.Close()
				if derr := wait(); derr != nil {
					t.Errorf("the device: %v", derr)
				}
				result.Progress = Progress{}
				if !errors.Is(err, test.kind) || (err == nil) != (test.kind == nil) || result != test.result && err == nil {
					t.Errorf("%+v %v", result, err)
				}
				if got := d.tree(t); got[data] != "content" {
					t.Errorf("the folder has %v", got)
				}
			})
		})
	}
}

func TestChangePassword(t *testing.T) {
	manifest := udid + "/Manifest.plist"
	d := dir(t.TempDir())
	d.put(t, manifest, "old keys")
	var l log
	s, wait := rig{t: t, script: func(p *phone) error {
		q, err := p.request()
		if want := map[string]any{"MessageName": "ChangePassword", "TargetIdentifier": udid, "OldPassword": "a", "NewPassword": "b"}; err != nil || !reflect.DeepEqual(q, want) {
			return fmt.Errorf("%v %v", q, err)
		}
		if got, s, err := p.download(udid+"/Snapshot/Manifest.plist", manifest); err != nil || s.Code != devicelink.StatusMulti || got[1].content != "old keys" {
			return fmt.Errorf("%v %+v %v", got, s, err)
		}
		if s, err := p.upload(manifest, "new keys"); err != nil || s.Code != 0 {
			return fmt.Errorf("%+v %v", s, err)
		}
		if err := p.respond(0, nil); err != nil {
			return err
		}
		// In the same session, the next request turns encryption off. The device
		// refuses it.
		if q, err := p.request(); err != nil || !reflect.DeepEqual(q, map[string]any{"MessageName": "ChangePassword", "TargetIdentifier": udid, "OldPassword": "b"}) {
			return fmt.Errorf("%v %v", q, err)
		}
		return p.respond(207, nil)
	}}.session()
	if err := s.ChangePassword(t.Context(), udid, []byte("a"), []byte("b"), d, &l); err != nil {
		t.Error(err)
	}
	if err := s.ChangePassword(t.Context(), udid, []byte("b"), nil, d, nil); !errors.Is(err, ErrWrongPassword) {
		t.Error(err)
	}
	if err := s.ChangePassword(t.Context(), udid, nil, nil, d, nil); err == nil {
		t.Error("two empty passwords were accepted")
	}
	s.Close()
	if err := wait(); err != nil {
		t.Error(err)
	}
	if got := d.tree(t); got[manifest] != "new keys" {
		t.Errorf("the folder holds %q", got)
	}
	if !slices.Equal(l.phases, []Phase{PhaseWaiting, PhaseRekeying}) {
		t.Errorf("phases %q", l.phases)
	}
}

// TestLongFile checks that the bytes of a file of many frames are counted, and that
// the file is not kept in memory.
func TestLongFile(t *testing.T) {
	var got countingUpload
	l, err := rig{t: t, script: asking(func(p *phone) error {
		if err := p.WriteMessage("DLMessageUploadFiles", map[string]any{}, 1.0, int64(1)<<60); err != nil {
			return err
		}
		if err := p.names(udid + "/Snapshot/ab/" + sha1A); err != nil {
			return err
		}
		if _, err := p.SendFile(io.LimitReader(zeros{}, 100<<20)); err != nil {
			return err
		}
		p.EndNames()
		_, err := p.ReadStatus()
		return err
	})}.backup(overridden{Folder: dir(t.TempDir()), create: func(context.Context, string) (Upload, error) { return &got, nil }})
	if err != nil || got.n != 100<<20 || got.commits != 1 || l.last.Bytes != 100<<20 {
		t.Errorf("%+v %+v %v", got, l.last, err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

type countingUpload struct {
	n       int64
	commits int
}

func (c *countingUpload) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return len(b), nil
}
func (c *countingUpload) Commit() error { c.commits++; return nil }
func (c *countingUpload) Abort()        {}

func TestRequestsThatCannotBeSent(t *testing.T) {
	s, wait := rig{t: t, script: func(*phone) error { return nil }}.session()
	defer wait()
	defer s.Close()
	for _, id := range []string{"", "..", "a/b", "a b", "ä", strings.Repeat("a", 65)} {
		if err := s.Backup(t.Context(), BackupRequest{UDID: id}, nil, nil); err == nil {
			t.Errorf("backup of %q", id)
		}
		if _, err := s.Restore(t.Context(), RestoreRequest{Target: udid, Source: id}, nil, nil); err == nil && id != "" {
			t.Errorf("restore of %q", id)
		}
		if err := s.ChangePassword(t.Context(), id, nil, []byte("x"), nil, nil); err == nil {
			t.Errorf("password of %q", id)
		}
	}
}

func BenchmarkUpload(b *testing.B) { benchmarkFiles(b, 1, 64<<20) }

// BenchmarkUploadSmall receives small files, like most files of a device.
func BenchmarkUploadSmall(b *testing.B) { benchmarkFiles(b, 1000, 2000) }

// benchmarkFiles replays the recorded bytes of a device, so that it measures only the
// host.
func benchmarkFiles(b *testing.B, files, size int) {
	var stream bytes.Buffer
	script := devicelink.New(&replay{w: &stream}, devicelink.Options{})
	script.WriteMessage("DLMessageUploadFiles", map[string]any{}, 1.0, int64(files*size))
	for range files {
		script.WriteName("/var/mobile/Library/some/where.db")
		script.WriteName(udid + "/Snapshot/ab/" + sha1A)
		script.SendFile(io.LimitReader(zeros{}, int64(size)))
	}
	script.EndNames()
	script.WriteMessage(devicelink.ProcessMessage, map[string]any{"MessageName": "Response", "ErrorCode": 0})
	b.SetBytes(int64(files * size))
	b.ReportAllocs()
	f := overridden{create: func(context.Context, string) (Upload, error) { return new(countingUpload), nil }}
	for b.Loop() {
		s := newSession(&replay{r: bytes.NewReader(stream.Bytes())}, Options{})
		if err := s.Backup(b.Context(), BackupRequest{UDID: udid}, f, nil); err != nil {
			b.Fatal(err)
		}
	}
}
