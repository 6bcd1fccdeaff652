// Package simulator is iPhones and iPads made of software: a usbmuxd that
// clients cannot tell from a real one, and behind it any number of devices with
// lockdownd, pairing, TLS and the services that take part in a backup.
//
// A Simulator is the mux: it serves a socket, keeps pair records and knows what
// is attached. A Device is one device: its values, whom it trusts, its services.
// Services that are not built in are added with Device.Handle; their handler
// gets a connection as it is after TLS.
//
// A device also judges its host. What a host does that a real device would not
// forgive, or that it would suffer from silently, is in Device.Violations; what
// happened at all is in Device.Events. Links can be cut, silenced and slowed
// down (Device.Inject, Device.SetLatency, Simulator.Detach).
//
// It never reads or writes files, and nothing it is sent makes it panic or
// allocate without bound.
package simulator
