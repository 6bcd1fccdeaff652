// Package simulator simulates iPhones and iPads: a usbmuxd that clients cannot
// tell from a real one, and any number of devices with lockdownd, pairing, TLS and
// the services that a backup needs.
//
// A Simulator is the usbmuxd: it serves a socket, keeps pair records and knows
// which devices are attached. A Device has values, trusted hosts and services.
// Device.Handle adds a service; its handler gets the connection after TLS.
//
// A device also judges its host. Device.Violations lists what a real device would
// reject or suffer from silently, and Device.Events everything that happened.
// Connections can be cut, silenced and delayed (Device.Inject, Device.SetLatency,
// Simulator.Detach).
//
// It never reads or writes files, and nothing that it receives makes it panic or
// allocate without bound.
package simulator
