package keybag

import (
	"context"
	"fmt"
	"io"
	"slices"
)

// Rewrap returns the bag under another password, as a device makes it when its owner changes the backup password: class keys,
// and with them all wrapped file keys, stay as they are; salts and wrapped class keys are new. It reads nothing but random. Both
// passwords take their rounds. A class that the old password does not open gives ErrDamagedClass, and ErrWrongPassword if it
// opens none. Unknown records are left out.
func (b *Bag) Rewrap(ctx context.Context, random io.Reader, old, new []byte) ([]byte, error) {
	raw, err := b.rewrap(ctx, random, old, new)
	if err != nil {
		return nil, fmt.Errorf("keybag: rewrap: %w", err)
	}
	return raw, nil
}

func (b *Bag) rewrap(ctx context.Context, random io.Reader, old, new []byte) ([]byte, error) {
	keys, err := b.unlock(ctx, old, nil) // tells a wrong password from a damaged bag
	if err != nil {
		return nil, err
	}
	keys.Destroy()
	from, err := b.passwordKey(ctx, old, nil)
	if err != nil {
		return nil, err
	}
	defer clear(from[:])
	next := *b
	next.Salt = make([]byte, len(b.Salt))
	next.DPSL = slices.Clone(b.DPSL)
	if err := fill(random, next.Salt, next.DPSL); err != nil {
		return nil, err
	}
	to, err := next.passwordKey(ctx, new, nil)
	if err != nil {
		return nil, err
	}
	defer clear(to[:])
	next.Classes = slices.Clone(b.Classes)
	for i := range next.Classes {
		class := &next.Classes[i]
		if class.Wrap&WrapPassword == 0 {
			continue
		}
		key, ok, err := class.unwrap(&from)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("class %d: %w", class.Number, ErrDamagedClass)
		}
		wrapped, err := wrapKey(&to, &key)
		clear(key[:])
		if err != nil {
			return nil, err
		}
		class.WrappedKey = wrapped[:]
	}
	return next.marshal(), nil
}
