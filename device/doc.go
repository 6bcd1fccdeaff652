// Package device finds iPhones and iPads, pairs with them, describes them, and
// opens their services.
//
// A computer reaches devices through usbmuxd (part of macOS, of Apple Devices
// and iTunes on Windows, and a package on Linux), which lists them and carries
// streams to their ports. On the device lockdownd answers questions, and hands
// out ports of services to computers that are paired with it: those with a pair
// record, which usbmuxd keeps. The frames of both conversations are go-ios'.
// Connecting, deadlines, decoding and TLS are not: there go-ios waits without
// end, takes a damaged answer for "done", and needs TLS 1.2.
//
// Nothing here trusts a device: answers are bounded, and every call ends with
// its context. Nothing is kept in the package; all state is usbmuxd's or the
// device's.
package device
