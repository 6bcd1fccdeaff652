package service

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/snap-backup/snap/device/protocol/stream"
)

// The device sends the number of seconds between two beats. Heartbeat waits
// three times as long for the next beat.
const (
	defaultBeat = 10 * time.Second
	maxBeat     = 10 * time.Minute
)

// Heartbeat answers the device's beats until ctx ends, and then returns nil. A
// device that is connected by Wi-Fi ends its sessions if it gets no answer.
// Heartbeat closes c, a connection to HeartbeatName.
func Heartbeat(ctx context.Context, c net.Conn) error {
	conn := stream.New(c)
	defer conn.Close()
	wait := 3 * defaultBeat
	for {
		msg, err := conn.Receive(ctx, wait)
		if err == nil && msg.String("Command") == "Marco" {
			if n, ok := msg.Int("Interval"); ok && n > 0 && n <= int64(maxBeat/time.Second) {
				wait = 3 * time.Duration(n) * time.Second
			}
			err = conn.Send(ctx, map[string]any{"Command": "Polo"})
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the device's heartbeat stopped: %w", err)
		}
		if msg.String("Command") == "SleepyTime" {
			return fmt.Errorf("heartbeat: the device is going to sleep")
		}
	}
}
