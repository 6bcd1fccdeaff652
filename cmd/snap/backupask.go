package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/host"
)

// askForBackup returns a function that asks for a device's backup password during
// backups. It returns nil if standard input is not a terminal, or with --json.
func (a *app) askForBackup(b *board) func(context.Context, *device.Info, host.AskReason) ([]byte, error) {
	if !a.canAsk() {
		return nil
	}
	return func(ctx context.Context, info *device.Info, why host.AskReason) ([]byte, error) {
		b.asking.Lock()
		defer b.asking.Unlock()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if why == host.PasswordUnknown && b.shared != nil {
			return bytes.Clone(b.shared), nil
		}
		b.quiet.Store(true)
		defer b.quiet.Store(false)
		name := clean(info.Name)
		prompt := fmt.Sprintf("backup password of %s (empty: store the backup locked): ", name)
		b.say(func() {
			switch why {
			case host.PasswordDoubted:
				a.warn("this password does not unlock the last snapshot of %s", name)
				prompt = fmt.Sprintf("backup password of %s (repeat it if it was changed on the device): ", name)
			case host.PasswordWrong:
				a.warn("this is not the backup password of %s", name)
			}
		})
		password, err := a.ask(ctx, prompt, oldBackupPassword)
		if errors.Is(err, errNoPassword) {
			return nil, nil
		}
		text, err := oldText(password, err)
		if err != nil {
			return nil, err
		}
		return text, b.share(ctx, text)
	}
}

// share asks once whether the backup password of one device is that of the others, too.
func (b *board) share(ctx context.Context, password []byte) error {
	others := len(b.views) - 1
	if others < 1 || b.offered {
		return nil
	}
	b.offered = true
	which := "the other device"
	if others > 1 {
		which = fmt.Sprintf("the other %d devices", others)
	}
	line, err := b.a.askLine(ctx, fmt.Sprintf("try this password on %s, too, where none is known? [y/N] ", which))
	if err != nil {
		return err
	}
	if line = strings.ToLower(line); line == "y" || line == "yes" {
		b.shared = bytes.Clone(password)
	}
	return nil
}
