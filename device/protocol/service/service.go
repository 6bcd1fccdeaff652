// Package service speaks with the small services of a device that exchange
// property lists: notifications, apps, icons, heartbeat, diagnostics.
//
// Each client owns the connection it is given. Whatever a device sends is
// bounded; after a failure a client can only be closed.
package service

import "errors"

// Names of the services.
const (
	NotificationProxy = "com.apple.mobile.notification_proxy"
	InstallationProxy = "com.apple.mobile.installation_proxy"
	SpringBoard       = "com.apple.springboardservices"
	HeartbeatName     = "com.apple.mobile.heartbeat"
	DiagnosticsRelay  = "com.apple.mobile.diagnostics_relay"
)

// ErrUnexpected says that a device answered something that is no answer.
var ErrUnexpected = errors.New("the device answered something unexpected")
