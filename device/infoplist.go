package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/snap-backup/snap/device/protocol/afc"
	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/protocol/service"
	"github.com/snap-backup/snap/device/protocol/stream"
)

// InfoOptions are options of InfoPlist.
type InfoOptions struct {
	Now    time.Time
	Random io.Reader
	// Missing, if not nil, is called for everything that could not be read.
	Missing func(what string, err error)
}

// Limits of an Info.plist. Real ones have up to 10 MB, most of it icons.
const (
	maxITunesFile = 8 << 20  // bytes of one file
	maxAppData    = 8 << 20  // bytes of one app
	maxInfoData   = 40 << 20 // bytes in all
	maxAppNames   = 20_000
)

// iTunesFolder is the device's folder with the files that a host copies into an
// Info.plist.
const iTunesFolder = "/iTunes_Control/iTunes/"

var iTunesFiles = []string{
	"ApertureAlbumPrefs", "IC-Info.sidb", "IC-Info.sidv", "PhotosFolderAlbums", "PhotosFolderName", "PhotosFolderPrefs",
	"VoiceMemos.plist", "iPhotoAlbumPrefs", "iTunesApplicationIDs", "iTunesPrefs", "iTunesPrefs.plist",
}

// oldITunes is the version of iTunes in the Info.plist of a device that does not
// name the version that it needs, such as some iPads.
const oldITunes = "10.0.1"

// InfoPlist returns the Info.plist of a backup, which the host adds to the files
// that the device sends. Apple's programs show its values, and a device reads it
// during a restore. InfoPlist omits what it cannot read, but fails if it cannot
// read the device's general values. If files is nil, it opens a connection to
// the media files itself.
//
// An Info.plist contains a phone number, IMEI and serial number.
func (m *Mux) InfoPlist(ctx context.Context, e Entry, files *afc.Client, opt InfoOptions) ([]byte, error) {
	g := gatherer{ctx: ctx, opt: opt, left: maxInfoData}
	s, err := m.Session(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("make Info.plist: %w", err)
	}
	defer s.Close()
	if g.general, err = s.Values(ctx, ""); err != nil {
		return nil, fmt.Errorf("make Info.plist: %w", err)
	}
	settings, err := s.Values(ctx, "com.apple.iTunes")
	g.note("settings of iTunes", err)
	g.settings = settings
	version, err := s.Value(ctx, "com.apple.mobile.iTunes", "MinITunesVersion")
	g.note("version of iTunes", err)
	g.version, _ = version.(string)
	// Open all connections first: devices close an idle session.
	apps, appsErr := s.StartService(ctx, service.InstallationProxy, false)
	icons, iconsErr := s.StartService(ctx, service.SpringBoard, false)
	if files == nil {
		if c, err := s.StartService(ctx, afc.Service, false); g.note("files of iTunes", err) {
			files = afc.New(c)
			defer files.Close()
		}
	}
	if g.note("apps", appsErr) {
		g.apps(service.NewApps(apps))
	}
	if g.note("icons", iconsErr) {
		g.icons(service.NewIcons(icons))
	}
	if files != nil {
		g.readFiles(files)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("make Info.plist: %w", err)
	}
	return g.build(e.UDID)
}

// gatherer collects the content of an Info.plist.
type gatherer struct {
	ctx  context.Context
	opt  InfoOptions
	left int // bytes that may still be added

	general, settings stream.Dict
	version           string
	names             []any
	applications      map[string]map[string]any
	withData          []string // keys of applications, in order
	files             map[string]any
	books             []byte
}

// note calls opt.Missing with what and err, unless err is nil or ErrMissing. It
// returns whether err is nil.
func (g *gatherer) note(what string, err error) bool {
	if err != nil && !errors.Is(err, ErrMissing) && g.opt.Missing != nil {
		g.opt.Missing(what, err)
	}
	return err == nil
}

var errTooMuch = errors.New("it is larger than any known file or app of this kind")

// reserve subtracts n from the bytes that may still be added. It fails if n is
// larger than limit, or larger than the number of these bytes.
func (g *gatherer) reserve(n, limit int) error {
	if n > limit || n > g.left {
		return errTooMuch
	}
	g.left -= n
	return nil
}

func (g *gatherer) apps(c *service.Apps) {
	defer c.Close()
	g.applications = map[string]map[string]any{}
	err := c.Browse(g.ctx, []string{"CFBundleIdentifier", "ApplicationSINF", "iTunesMetadata"}, func(app stream.Dict) error {
		id := text(app, "CFBundleIdentifier")
		if id == "" || len(g.names) == maxAppNames {
			return nil
		}
		g.names = append(g.names, id)
		// An app without these was not bought in the store.
		sinf, metadata := app.Data("ApplicationSINF"), app.Data("iTunesMetadata")
		if len(sinf) == 0 || len(metadata) == 0 || g.applications[id] != nil {
			return nil
		}
		if g.note("app "+id, g.reserve(len(sinf)+len(metadata), maxAppData)) {
			g.applications[id] = map[string]any{"ApplicationSINF": sinf, "iTunesMetadata": metadata}
			g.withData = append(g.withData, id)
		}
		return nil
	})
	g.note("apps", err)
}

func (g *gatherer) icons(c *service.Icons) {
	defer c.Close()
	for _, id := range g.withData {
		png, err := c.PNG(g.ctx, id)
		if !g.note("icons", err) {
			return
		}
		if len(png) > 0 && g.note("icon of "+id, g.reserve(len(png), maxAppData)) {
			g.applications[id]["PlaceholderIcon"] = png
		}
	}
}

func (g *gatherer) readFiles(c *afc.Client) {
	g.files = map[string]any{}
	for _, name := range iTunesFiles {
		b, ok := g.readFile(c, iTunesFolder+name)
		if !ok {
			return
		}
		if b != nil {
			g.files[name] = b
		}
	}
	g.books, _ = g.readFile(c, "/Books/iBooksData2.plist")
}

// readFile returns the content of a file, or nil if it does not exist or cannot
// be read. ok is false if the connection failed.
func (g *gatherer) readFile(c *afc.Client, path string) (b []byte, ok bool) {
	b, err := c.ReadFile(g.ctx, path, maxITunesFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true
	}
	if err == nil {
		err = g.reserve(len(b), maxITunesFile)
	}
	if g.note(path, err) {
		if b == nil {
			b = []byte{} // an empty file
		}
		return b, true
	}
	var status afc.Status
	return nil, errors.As(err, &status) || errors.Is(err, afc.ErrTooLarge) || errors.Is(err, errTooMuch)
}

func (g *gatherer) build(udid string) ([]byte, error) {
	id := make([]byte, 16)
	if _, err := io.ReadFull(g.opt.Random, id); err != nil {
		return nil, fmt.Errorf("make Info.plist: %w", err)
	}
	out := map[string]any{
		"GUID":              fmt.Sprintf("%X", id),
		"Last Backup Date":  g.opt.Now.UTC().Truncate(time.Second),
		"Target Identifier": udid,
		"Target Type":       "Device",
		"Unique Identifier": strings.ToUpper(udid),
		"iTunes Version":    oldITunes,
	}
	if g.version != "" {
		out["iTunes Version"] = g.version
	}
	for key, from := range map[string]string{
		"Build Version": "BuildVersion", "Product Type": "ProductType", "Product Version": "ProductVersion", "Serial Number": "SerialNumber",
		"Device Name": "DeviceName", "Display Name": "DeviceName", "ICCID": "IntegratedCircuitCardIdentity",
		"IMEI": "InternationalMobileEquipmentIdentity", "MEID": "MobileEquipmentIdentifier", "Phone Number": "PhoneNumber",
	} {
		if s := text(g.general, from); s != "" {
			out[key] = s
		}
	}
	if t := text(g.general, "ProductType"); t != "" {
		out["Product Name"] = Model(t)
	}
	apps, files, settings := map[string]any{}, g.files, map[string]any(g.settings)
	for id, app := range g.applications {
		apps[id] = app
	}
	if files == nil {
		files = map[string]any{}
	}
	if settings == nil {
		settings = map[string]any{}
	}
	names := g.names
	if names == nil {
		names = []any{}
	}
	out["Applications"], out["Installed Applications"] = apps, names
	out["iTunes Files"], out["iTunes Settings"] = files, settings
	if g.books != nil {
		out["iBooks Data 2"] = g.books
	}
	b, err := plist.EncodeXML(out)
	if err != nil {
		return nil, fmt.Errorf("make Info.plist: %w", err)
	}
	return b, nil
}
