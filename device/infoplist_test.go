package device

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/devicetest"
	"github.com/snap-backup/snap/device/protocol/service"
	"github.com/snap-backup/snap/device/protocol/stream"
	"github.com/snap-backup/snap/device/simulator"
)

func infoOptions(missing *[]string) InfoOptions {
	return InfoOptions{
		Now: time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC), Random: bytes.NewReader(bytes.Repeat([]byte{0xab}, 16)),
		Missing: func(what string, err error) { *missing = append(*missing, what) },
	}
}

func TestInfoPlist(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := r.device(simulator.Spec{UDID: "00008110-000a1b2c3d4e5f60", Name: "Anna’s <iPhone>"})
	d.SetValue("", "PhoneNumber", "+49 170 0000000")
	d.SetValue("", "InternationalMobileEquipmentIdentity", "35000000")
	apps := []simulator.App{{ID: "com.example.free"}, {ID: "com.example.half", SINF: []byte("s")}}
	for _, id := range []string{"a", "b", "c", "d", "e", "f"} { // more apps than fit into one page of the list
		apps = append(apps, simulator.App{ID: "com.example." + id, SINF: []byte("sinf " + id), Metadata: []byte("meta " + id)})
	}
	apps = append(apps, simulator.App{ID: "com.example.huge", SINF: make([]byte, 3<<20), Metadata: make([]byte, 2<<20)})
	d.SetApps(apps)
	d.WriteFile("/iTunes_Control/iTunes/iTunesPrefs", []byte("prefs"))
	d.WriteFile("/Books/iBooksData2.plist", []byte("books"))
	var missing []string
	raw, err := r.InfoPlist(t.Context(), r.entry(), nil, infoOptions(&missing))
	if err != nil {
		t.Fatal(err)
	}
	got, err := stream.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"Device Name": "Anna’s <iPhone>", "Display Name": "Anna’s <iPhone>", "Product Type": "iPhone14,5", "Product Name": "iPhone 13",
		"Product Version": "17.5.1", "Build Version": "21F90", "Target Identifier": "00008110-000a1b2c3d4e5f60", "Target Type": "Device",
		"Unique Identifier": "00008110-000A1B2C3D4E5F60", "GUID": strings.Repeat("AB", 16), "Phone Number": "+49 170 0000000",
		"IMEI": "35000000", "iTunes Version": "12.12", "Last Backup Date": time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
		"iTunes Files": map[string]any{"iTunesPrefs": []byte("prefs")}, "iBooks Data 2": []byte("books"),
		"iTunes Settings": map[string]any{"AccountSocialEnabled": false},
	} {
		if !reflect.DeepEqual(got[key], want) {
			t.Errorf("%s: %#v, want %#v", key, got[key], want)
		}
	}
	if got.Has("MEID") || got.Has("ICCID") {
		t.Error("it contains values that the device does not have")
	}
	if n := len(got.List("Installed Applications")); n != len(apps) {
		t.Errorf("%d apps installed", n)
	}
	bought := got.Dict("Applications")
	app := bought.Dict("com.example.c")
	if len(bought) != 7 || string(app.Data("ApplicationSINF")) != "sinf c" || string(app.Data("iTunesMetadata")) != "meta c" || !bytes.HasPrefix(app.Data("PlaceholderIcon"), []byte("\x89PNG")) {
		t.Errorf("%d apps: %v", len(bought), app)
	}
	if len(missing) > 0 {
		t.Errorf("missing: %v", missing)
	}
	if !bytes.HasPrefix(raw, []byte("<?xml")) {
		t.Errorf("%q", raw[:20])
	}
	devicetest.NoViolations(t, d)
}

// TestInfoPlistWithoutServices checks that all values except those of the
// missing services are in the Info.plist.
func TestInfoPlistWithoutServices(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := r.device(simulator.Spec{ProductType: "iPad99,9"})
	d.SetValue(simulator.DomainITunes, "MinITunesVersion", nil)
	for _, name := range []string{service.InstallationProxy, service.SpringBoard, "com.apple.afc"} {
		d.Refuse(name, "ServiceProhibited")
	}
	var missing []string
	raw, err := r.InfoPlist(t.Context(), r.entry(), nil, infoOptions(&missing))
	if err != nil {
		t.Fatal(err)
	}
	got, err := stream.Decode(raw)
	if err != nil || got.String("Product Name") != "iPad99,9" || got.String("iTunes Version") != oldITunes || got.List("Installed Applications") == nil ||
		!got.Has("Applications") || !got.Has("iTunes Files") {
		t.Errorf("%v %v", got, err)
	}
	slices.Sort(missing)
	if want := []string{"apps", "files of iTunes", "icons"}; !slices.Equal(missing, want) {
		t.Errorf("missing: %v", missing)
	}
	opt := infoOptions(&missing)
	opt.Random = strings.NewReader("")
	if _, err := r.InfoPlist(t.Context(), r.entry(), nil, opt); err == nil {
		t.Error("no error without randomness")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.InfoPlist(ctx, r.entry(), nil, opt); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestInfoPlistWithBrokenLinks cuts the connection to one service. The
// Info.plist must have all other values.
func TestInfoPlistWithBrokenLinks(t *testing.T) {
	t.Parallel()
	failIfSlow(t)
	r := newRig(t)
	d := r.device(simulator.Spec{})
	d.SetApps([]simulator.App{{ID: "a", SINF: []byte("s"), Metadata: []byte("m")}})
	e := r.entry()
	for _, name := range []string{service.InstallationProxy, service.SpringBoard, "com.apple.afc"} {
		for _, after := range []int64{0, 50, 300} {
			d.Cut(name, after)
			var missing []string
			raw, err := r.InfoPlist(t.Context(), e, nil, infoOptions(&missing))
			if err != nil || len(raw) == 0 || len(missing) == 0 && after < 300 {
				t.Errorf("%s after %d: %v, missing %v", name, after, err, missing)
			}
		}
	}
}

func TestInfoBounds(t *testing.T) {
	t.Parallel()
	g := gatherer{left: 10}
	if g.reserve(11, 20) == nil || g.reserve(5, 4) == nil || g.reserve(6, 20) != nil || g.reserve(5, 20) == nil || g.reserve(4, 20) != nil {
		t.Error("bounds")
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := r.device(simulator.Spec{})
	d.SetPasscode(true)
	d.SetValue(simulator.DomainBackup, "LastiTunesBackupDate", float64(60))
	d.SetValue("", "DeviceName", strings.Repeat("x", 5000))
	r.Attach(d, simulator.Network)
	i, err := r.Describe(t.Context(), r.entry())
	if err != nil {
		t.Fatal(err)
	}
	if i.Trust != Trusted || i.PasscodeSet == nil || !*i.PasscodeSet || i.LastBackup == nil || !i.LastBackup.Equal(time.Date(2001, 1, 1, 0, 1, 0, 0, time.UTC)) ||
		len(i.Name) != maxText || len(i.Connections) != 2 || i.Battery.Percent != 80 || i.Storage.Total != 128_000_000_000 || *i.FindMy || *i.WillEncrypt {
		t.Errorf("%+v", i)
	}
	d.SetPasscode(false)
	if i, err := r.Describe(t.Context(), r.entry()); err != nil || i.PasscodeSet == nil || *i.PasscodeSet {
		t.Errorf("%+v %v", i, err)
	}
	// Without the service it is unknown whether a passcode is set.
	d.Refuse(service.DiagnosticsRelay, "InvalidService")
	if i, err := r.Describe(t.Context(), r.entry()); err != nil || i.PasscodeSet != nil {
		t.Errorf("%+v %v", i, err)
	}
	d.ForgetHosts()
	if i, err := r.Describe(t.Context(), r.entry()); err != nil || i.Trust != Stale || i.ProductType == "" || i.WillEncrypt != nil {
		t.Errorf("%+v %v", i, err)
	}
	e := r.entry()
	r.Detach(d)
	if i, err := r.Describe(t.Context(), e); !errors.Is(err, ErrGone) || i.Trust != Unknown || i.UDID != e.UDID {
		t.Errorf("%+v %v", i, err)
	}
	devicetest.NoViolations(t, d)
}
