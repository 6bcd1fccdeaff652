package simulator

import (
	"context"
	"net"
	"slices"
	"sync"

	"github.com/snap-backup/snap/device/simulator/message"
)

// App is an installed app, which installation_proxy lists.
type App struct {
	ID       string // bundle identifier
	Name     string
	Version  string
	SINF     []byte // nil if the app is not from the store
	Metadata []byte // property list; nil if the app is not from the store
}

// appsPerPage is the number of apps that one message lists.
const appsPerPage = 5

type apps struct {
	mu   sync.Mutex
	list []App
}

// SetApps sets the installed apps.
func (d *Device) SetApps(list []App) {
	d.apps.mu.Lock()
	defer d.apps.mu.Unlock()
	d.apps.list = slices.Clone(list)
}

// Apps returns the installed apps.
func (d *Device) Apps() []App {
	d.apps.mu.Lock()
	defer d.apps.mu.Unlock()
	return slices.Clone(d.apps.list)
}

// attributes returns those of the app's attributes that the option ReturnAttributes
// names, or all of them without this option.
func (a App) attributes(options map[string]any) map[string]any {
	all := map[string]any{
		"ApplicationType":            "User",
		"CFBundleIdentifier":         a.ID,
		"CFBundleName":               a.Name,
		"CFBundleDisplayName":        a.Name,
		"CFBundleExecutable":         a.Name,
		"CFBundleVersion":            a.Version,
		"CFBundleShortVersionString": a.Version,
		"Path":                       "/private/var/containers/Bundle/Application/" + a.ID + "/" + a.Name + ".app",
	}
	if a.SINF != nil {
		all["ApplicationSINF"] = a.SINF
	}
	if a.Metadata != nil {
		all["iTunesMetadata"] = a.Metadata
	}
	if names, ok := options["ReturnAttributes"].([]any); ok {
		for name := range all {
			if !slices.Contains(names, any(name)) {
				delete(all, name)
			}
		}
	}
	return all
}

// serveApps serves the part of installation_proxy that lists apps.
func (d *Device) serveApps(_ context.Context, conn net.Conn) {
	d.answerRequests(InstallationProxy, conn, "Command", func(command string, request map[string]any) ([]map[string]any, bool) {
		options, _ := request["ClientOptions"].(map[string]any)
		var list []App
		if kind, _ := options["ApplicationType"].(string); kind == "" || kind == "User" || kind == "Any" {
			list = d.Apps()
		}
		done := map[string]any{"Status": "Complete"}
		switch command {
		case "Browse":
			var pages []map[string]any
			for at := 0; at < len(list); at += appsPerPage {
				page := []any{}
				for _, app := range list[at:min(at+appsPerPage, len(list))] {
					page = append(page, app.attributes(options))
				}
				pages = append(pages, map[string]any{
					"Status": "BrowsingApplications", "CurrentIndex": at, "CurrentAmount": len(page), "CurrentList": page,
				})
			}
			return append(pages, done), true
		case "Lookup":
			wanted, some := options["BundleIDs"].([]any)
			found := map[string]any{}
			for _, app := range list {
				if !some || slices.Contains(wanted, any(app.ID)) {
					found[app.ID] = app.attributes(options)
				}
			}
			done["LookupResult"] = found
			return []map[string]any{done}, true
		}
		return nil, false
	})
}

// answerRequests answers requests until the connection ends. It calls answer with the
// command, which is the request's value for key, and with the request. answer returns
// the replies, and whether it knows the command.
func (d *Device) answerRequests(service string, conn net.Conn, key string, answer func(string, map[string]any) ([]map[string]any, bool)) {
	for {
		request, err := message.Read(conn)
		if err != nil {
			d.framing(service, err)
			return
		}
		command, _ := request[key].(string)
		d.Log(service, "request", command)
		replies, known := answer(command, request)
		if !known {
			d.Violate("%s: unknown command %q", service, command)
			replies = []map[string]any{{"Error": "UnknownCommand", "Status": "UnknownRequest"}}
		}
		for _, reply := range replies {
			if message.Write(conn, reply) != nil {
				return
			}
		}
	}
}
