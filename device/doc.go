// Package device finds iPhones and iPads, pairs with them, describes them, and
// opens their services.
//
// A computer reaches devices through usbmuxd (part of macOS, of Apple Devices
// and iTunes on Windows, and a package on Linux), which lists devices and
// connects to their ports. On the device, lockdownd describes the device and
// starts services for computers that are paired with it: those with a pairing
// record, which usbmuxd stores.
//
// The package does not trust devices: it bounds their answers, and every call
// ends with its context. It keeps no state, which is usbmuxd's or the device's.
//
// Package stream has the messages of both, with frames of go-ios. Connecting,
// deadlines, decoding and TLS are here and there, since go-ios waits without
// limit, takes damaged answers for success, and needs TLS 1.2.
package device
