package simulator

import (
	"context"
	"net"
)

// serveDiagnostics serves the part of diagnostics_relay that says whether the device
// has a passcode.
func (d *Device) serveDiagnostics(_ context.Context, conn net.Conn) {
	d.answerRequests(DiagnosticsRelay, conn, "Request", func(command string, request map[string]any) ([]map[string]any, bool) {
		switch command {
		case "MobileGestalt":
			answers := map[string]any{"Status": "Success"}
			keys, _ := request["MobileGestaltKeys"].([]any)
			for _, key := range keys {
				switch name, _ := key.(string); name {
				case "PasswordConfigured":
					answers[name] = d.PasscodeSet()
				case "PasswordProtected":
					answers[name] = d.Lock() != Unlocked
				case "UniqueDeviceID", "ProductType", "ProductVersion", "BuildVersion", "SerialNumber":
					answers[name] = d.text("", name)
				}
			}
			return []map[string]any{{"Status": "Success", "Diagnostics": map[string]any{"MobileGestalt": answers}}}, true
		case "Goodbye":
			return []map[string]any{{"Status": "Success"}}, true
		}
		return nil, false
	})
}
