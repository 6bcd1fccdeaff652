package synthetic

import (
	"fmt"
	"io"
	"strings"
	"time"

	"howett.net/plist"
)

// sendPlists writes the three property lists. It writes Status.plist last, since this
// file says that the run is complete.
func (d *device) sendPlists(full bool) error {
	version := "3.3"
	if d.flat {
		version = "2.4"
	}
	for _, p := range []struct {
		name   string
		format int
		value  any
	}{
		{"Manifest.plist", plist.BinaryFormat, d.manifestPlist()},
		{"Info.plist", plist.XMLFormat, d.infoPlist()},
		{"Status.plist", plist.BinaryFormat, map[string]any{
			"BackupState":   "new",
			"Date":          d.finishTime(),
			"IsFullBackup":  full,
			"SnapshotState": "finished",
			"UUID":          d.m.stream("status", d.day).uuid(),
			"Version":       version,
		}},
	} {
		b, err := marshalList(p.value, p.format)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if _, err := d.send(p.name, nil, false, func(w io.Writer) error { _, err := w.Write(b); return err }); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

func marshalList(value any, format int) ([]byte, error) {
	if format == plist.XMLFormat {
		return plist.MarshalIndent(value, format, "\t")
	}
	return plist.Marshal(value, format)
}

// finishTime returns the time at which the last blob was sent.
func (d *device) finishTime() time.Time {
	return d.started.Add(time.Duration(d.sent/filesPerSecond) * time.Second)
}

func (d *device) manifestPlist() map[string]any {
	version := "10.0"
	if d.flat {
		version = "9.1"
	}
	p := map[string]any{
		"Version":              version,
		"Date":                 d.finishTime(),
		"SystemDomainsVersion": "24.0",
		"IsEncrypted":          d.Encrypted,
		"WasPasscodeSet":       true,
		"BackupKeyBag":         d.bag,
		"Applications":         d.applications(),
		"Lockdown": map[string]any{
			"BuildVersion":                        d.BuildVersion,
			"DeviceName":                          d.Name,
			"ProductType":                         d.ProductType,
			"ProductVersion":                      d.ProductVersion,
			"SerialNumber":                        d.SerialNumber,
			"UniqueDeviceID":                      d.UDID,
			"com.apple.MobileDeviceCrashCopy":     map[string]any{"ShouldSubmit": false},
			"com.apple.TerminalFlashr":            map[string]any{},
			"com.apple.mobile.data_sync":          map[string]any{"Calendars": map[string]any{"AccountNames": []any{"iCloud"}, "Sources": []any{"iCloud"}}},
			"com.apple.mobile.iTunes.accessories": map[string]any{},
			"com.apple.mobile.wireless_lockdown":  map[string]any{"EnableWifiConnections": true},
		},
	}
	if d.manifestKey != nil {
		p["ManifestKey"] = d.manifestKey
	}
	return p
}

func (d *device) applications() map[string]any {
	s := d.m.stream("applications")
	apps := map[string]any{}
	for i, bundle := range d.bundles {
		class, folder := "Data/Application", "Application"
		if i >= d.shape.apps {
			class, folder = "Data/PluginKitPlugin", "PluginKitPlugin"
		}
		apps[bundle] = map[string]any{
			"CFBundleIdentifier":    bundle,
			"CFBundleVersion":       fmt.Sprintf("%d.%d.%d", s.IntN(30), s.IntN(20), s.IntN(400)),
			"ContainerContentClass": class,
			"Path":                  "/var/containers/Bundle/" + folder + "/" + s.uuid() + "/" + bundle[strings.LastIndexByte(bundle, '.')+1:] + ".app",
		}
	}
	return apps
}

func (d *device) infoPlist() map[string]any {
	s := d.m.stream("info")
	installed, apps := []any{}, map[string]any{}
	for _, bundle := range d.bundles[:d.shape.apps] {
		installed = append(installed, bundle)
		name := bundle[strings.LastIndexByte(bundle, '.')+1:]
		metadata := map[string]any{"artistName": d.m.words.name(s), "itemId": s.IntN(1 << 30), "itemName": name, "softwareVersionBundleId": bundle,
			"genre": d.m.words.name(s), "com.apple.iTunesStore.downloadInfo": map[string]any{"purchaseDate": "2024-03-0" + fmt.Sprint(1+s.IntN(9)) + "T10:00:00Z"}}
		inner, err := plist.Marshal(metadata, plist.BinaryFormat)
		if err != nil {
			inner = nil // unreachable, since the value has only strings and integers
		}
		apps[bundle] = map[string]any{
			"ApplicationSINF": s.bytes(d.shape.iconSize / 10),
			"PlaceholderIcon": append([]byte("\x89PNG\r\n\x1a\n"), s.bytes(s.between(d.shape.iconSize/2, d.shape.iconSize*3/2))...),
			"iTunesMetadata":  inner,
		}
	}
	return map[string]any{
		"Applications":           apps,
		"Build Version":          d.BuildVersion,
		"Device Name":            d.Name,
		"Display Name":           d.Name,
		"GUID":                   strings.ToUpper(s.hex(16)),
		"ICCID":                  fmt.Sprintf("8949%015d", s.Int64N(1e15)),
		"IMEI":                   fmt.Sprintf("35%013d", s.Int64N(1e13)),
		"Installed Applications": installed,
		"Last Backup Date":       d.finishTime(),
		"Phone Number":           fmt.Sprintf("+49 15%d", s.Int64N(1e9)),
		"Product Name":           strings.TrimRight(d.ProductType, "0123456789,"),
		"Product Type":           d.ProductType,
		"Product Version":        d.ProductVersion,
		"Serial Number":          d.SerialNumber,
		"Target Identifier":      d.UDID,
		"Target Type":            "Device",
		"Unique Identifier":      strings.ToUpper(d.UDID),
		"iTunes Files":           map[string]any{"iTunesPrefs": s.bytes(400), "VoiceMemos.plist": s.bytes(200)},
		"iTunes Settings":        map[string]any{},
		"iTunes Version":         "12.13.4.4",
	}
}
