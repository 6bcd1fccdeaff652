// Package service has clients of the small services of a device that exchange
// property lists: notifications, apps, icons, heartbeat, diagnostics.
//
// Each client owns its connection and bounds what a device sends. After a failure
// it can only be closed.
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

// ErrUnexpected says that a device sent an unexpected answer.
var ErrUnexpected = errors.New("the device sent an unexpected answer")
