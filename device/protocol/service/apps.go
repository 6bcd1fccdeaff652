package service

import (
	"context"
	"fmt"
	"net"

	"github.com/snap-backup/snap/device/protocol/stream"
)

// Limits of a list of apps. Phones with a thousand apps exist.
const (
	maxApps     = 20_000
	maxAppBytes = 256 << 20
)

// Apps is a client of the installation proxy.
type Apps struct{ conn *stream.Conn }

// NewApps returns a client on a connection to InstallationProxy.
func NewApps(c net.Conn) *Apps { return &Apps{stream.New(c)} }

// Browse calls fn for every app that the user installed. app contains those
// of the named attributes that the app has.
func (a *Apps) Browse(ctx context.Context, attributes []string, fn func(app stream.Dict) error) error {
	err := a.conn.Send(ctx, map[string]any{"Command": "Browse", "ClientOptions": map[string]any{
		"ApplicationType": "User", "ReturnAttributes": attributes,
	}})
	if err != nil {
		return fmt.Errorf("list apps: %w", err)
	}
	apps, bytes := 0, 0
	for {
		msg, err := a.conn.Receive(ctx, stream.Timeout)
		if err != nil {
			return fmt.Errorf("list apps: %w", err)
		}
		if e := msg.String("Error"); e != "" {
			return fmt.Errorf("list apps: %w: %s", ErrUnexpected, e)
		}
		for _, item := range msg.List("CurrentList") {
			app, ok := item.(map[string]any)
			if !ok {
				continue
			}
			apps++
			for _, v := range app {
				if b, ok := v.([]byte); ok {
					bytes += len(b)
				}
			}
			if apps > maxApps || bytes > maxAppBytes {
				return fmt.Errorf("list apps: %w: more than %d apps or %d MiB", ErrUnexpected, maxApps, maxAppBytes>>20)
			}
			if err := fn(app); err != nil {
				return err
			}
		}
		switch status := msg.String("Status"); status {
		case "Complete":
			return nil
		case "BrowsingApplications":
		default:
			return fmt.Errorf("list apps: %w: status %q", ErrUnexpected, status)
		}
	}
}

// Close closes the connection.
func (a *Apps) Close() error { return a.conn.Close() }

// maxIcon limits an app's icon, in bytes. Real ones have 5 to 50 KB.
const maxIcon = 4 << 20

// Icons is a client of SpringBoard, the home screen.
type Icons struct{ conn *stream.Conn }

// NewIcons returns a client on a connection to SpringBoard.
func NewIcons(c net.Conn) *Icons { return &Icons{stream.New(c)} }

// PNG returns the icon of an app, or nil if there is none or it is too large.
func (i *Icons) PNG(ctx context.Context, bundleID string) ([]byte, error) {
	msg, err := i.conn.Ask(ctx, map[string]any{"command": "getIconPNGData", "bundleId": bundleID})
	if err != nil {
		return nil, fmt.Errorf("icon of %s: %w", bundleID, err)
	}
	if png := msg.Data("pngData"); len(png) > 0 && len(png) <= maxIcon {
		return png, nil
	}
	return nil, nil
}

// Close closes the connection.
func (i *Icons) Close() error { return i.conn.Close() }
