package service

import (
	"context"
	"fmt"
	"net"

	"github.com/snap-backup/snap/device/protocol/stream"
)

// PasscodeSet asks the diagnostics relay whether the device has a passcode. known
// is false on newer systems, which do not tell. PasscodeSet closes c, a
// connection to DiagnosticsRelay.
func PasscodeSet(ctx context.Context, c net.Conn) (set, known bool, err error) {
	conn := stream.New(c)
	defer conn.Close()
	msg, err := conn.Ask(ctx, map[string]any{"Request": "MobileGestalt", "MobileGestaltKeys": []string{"PasswordConfigured"}})
	if err != nil {
		return false, false, fmt.Errorf("ask whether the device has a passcode: %w", err)
	}
	// Best effort: the device also accepts a closed connection.
	_ = conn.Send(ctx, map[string]any{"Request": "Goodbye"})
	answers := msg.Dict("Diagnostics").Dict("MobileGestalt")
	if msg.String("Status") != "Success" || !answers.Has("PasswordConfigured") {
		return false, false, nil
	}
	return answers.Bool("PasswordConfigured"), true, nil
}
