package keybag

import (
	"context"
	"fmt"
	"io"
	"slices"
)

// Rewrap returns the keybag with another password, as a device does when the backup
// password changes. The class keys and all wrapped file keys stay the same.
// Salts and wrapped class keys are new. The error is ErrWrongPassword if the old
// password unwraps no class key, and ErrDamagedClass if it unwraps only some. Fields
// of the keybag that this package does not know are omitted.
func (b *Bag) Rewrap(ctx context.Context, random io.Reader, old, new []byte) ([]byte, error) {
	raw, err := b.rewrap(ctx, random, old, new)
	if err != nil {
		return nil, fmt.Errorf("keybag: rewrap: %w", err)
	}
	return raw, nil
}

func (b *Bag) rewrap(ctx context.Context, random io.Reader, old, new []byte) ([]byte, error) {
	keys, err := b.unlock(ctx, old, nil) // distinguishes a wrong password from a damaged keybag
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
	next.DPSL = slices.Clone(b.DPSL) // nil if there is no second salt
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
