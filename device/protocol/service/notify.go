package service

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/snap-backup/snap/device/protocol/stream"
)

// Notifications that a host observes.
const (
	SyncCancelRequest   = "com.apple.itunes-client.syncCancelRequest" // the user tapped Cancel on the device
	SyncSuspendRequest  = "com.apple.itunes-client.syncSuspendRequest"
	SyncResumeRequest   = "com.apple.itunes-client.syncResumeRequest"
	BackupDomainChanged = "com.apple.mobile.backup.domain_changed" // a setting of backups changed, such as encryption
	PromptPresented     = "com.apple.LocalAuthentication.ui.presented"
	PromptDismissed     = "com.apple.LocalAuthentication.ui.dismissed"
)

// Notifications that a host posts around a backup or a restore.
const (
	SyncWillStart   = "com.apple.itunes-mobdev.syncWillStart"
	SyncLockRequest = "com.apple.itunes-mobdev.syncLockRequest"
	SyncDidStart    = "com.apple.itunes-mobdev.syncDidStart"
	SyncDidFinish   = "com.apple.itunes-mobdev.syncDidFinish"
)

// shutdownTimeout is how long a device may take to confirm a shutdown.
const shutdownTimeout = 5 * time.Second

// Notify is a client of the notification proxy. Call Observe, then Next. To
// post while Next waits, use another Notify.
type Notify struct{ conn *stream.Conn }

// NewNotify returns a client on a connection to NotificationProxy.
func NewNotify(c net.Conn) *Notify { return &Notify{stream.New(c)} }

// Observe asks the device to send the named notifications.
func (n *Notify) Observe(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := n.send(ctx, "ObserveNotification", name); err != nil {
			return err
		}
	}
	return nil
}

// Post posts a notification on the device.
func (n *Notify) Post(ctx context.Context, name string) error {
	return n.send(ctx, "PostNotification", name)
}

func (n *Notify) send(ctx context.Context, command, name string) error {
	err := n.conn.Send(ctx, map[string]any{"Command": command, "Name": name})
	if err != nil {
		return fmt.Errorf("notification %s: %w", name, err)
	}
	return nil
}

// Next waits for the next notification until ctx ends. "" means that the device
// closed the service.
func (n *Notify) Next(ctx context.Context) (string, error) {
	for {
		msg, err := n.conn.Receive(ctx, 0)
		if err != nil {
			return "", fmt.Errorf("wait for a notification: %w", err)
		}
		switch msg.String("Command") {
		case "RelayNotification":
			if name := msg.String("Name"); name != "" {
				return name, nil
			}
		case "ProxyDeath":
			return "", nil
		}
	}
}

// Shutdown asks the device to end the service, waits for the confirmation and
// closes the connection. Without Shutdown, a device may drop the last
// notification.
func (n *Notify) Shutdown(ctx context.Context) error {
	defer n.conn.Close()
	if err := n.conn.Send(ctx, map[string]any{"Command": "Shutdown"}); err != nil {
		return fmt.Errorf("end notifications: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, shutdownTimeout)
	defer cancel()
	for {
		name, err := n.Next(ctx)
		if err != nil || name == "" {
			return err
		}
	}
}

// Close closes the connection without telling the device.
func (n *Notify) Close() error { return n.conn.Close() }
