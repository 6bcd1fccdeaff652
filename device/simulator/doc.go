// Package simulator simulates iPhones and iPads: a usbmuxd that clients cannot
// tell from a real one, and any number of devices with lockdownd, pairing, TLS and
// the services that a backup needs.
//
// A Simulator is the usbmuxd: it serves a socket, keeps pair records and knows
// which devices are attached. A Device has values, trusted hosts and services.
// Device.Handle adds a service; its handler gets connections with TLS set up.
//
// A device also judges its host. Device.Violations lists the host's mistakes, even
// those of which a real device would not inform the host. Device.Events
// lists everything that happened. Connections can be cut, silenced and delayed
// (Device.Inject, Device.SetLatency, Simulator.Detach).
//
// The package never reads or writes files. Whatever it receives, it does not panic,
// and its memory stays bounded.
package simulator
