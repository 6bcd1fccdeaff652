package main

import (
	"context"
	"errors"
	"fmt"

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
		return oldText(password, err)
	}
}
