// Package device finds iPhones and iPads, pairs with them, describes them, and
// opens their services.
//
// A computer reaches devices through usbmuxd, which lists devices and connects
// to their ports. It is part of macOS, and of Apple Devices and iTunes on
// Windows; on Linux it is a package. On the device, lockdownd describes the
// device and starts services for computers that are paired with it. A paired
// computer has a pairing record, which usbmuxd stores.
//
// The package does not trust devices: it bounds their answers, and every call
// ends with its context. It keeps no state; all state is in usbmuxd and the
// device.
//
// Package stream reads and writes the messages of usbmuxd and lockdownd, with
// go-ios's framing. Connecting, deadlines, decoding and TLS are in this
// package and in stream, since go-ios waits without limit, treats damaged
// answers as success, and needs TLS 1.2.
package device
