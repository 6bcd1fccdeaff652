package keybag

import (
	"bytes"
	"context"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func testRandom(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

func newTestBag(t testing.TB, password string, opt NewOptions) ([]byte, *Keys) {
	t.Helper()
	if opt.Iter == 0 {
		opt.Iter = 10
	}
	if opt.DPIC == 0 {
		opt.DPIC = 20
	}
	raw, keys, err := New(testRandom(1), []byte(password), opt)
	if err != nil {
		t.Fatal(err)
	}
	return raw, keys
}

func TestNewRoundTrip(t *testing.T) {
	for _, c := range []struct {
		name, password string
		opt            NewOptions
		length         int
		open           []uint32
		first          uint32
	}{
		{"encrypted", "pä ss", NewOptions{}, 1388, []uint32{1, 2, 3, 4, 6, 7, 8}, 1},
		{"one stage", "secret", NewOptions{OneStage: true}, 1336, []uint32{1, 2, 3, 4, 6, 7, 8}, 11},
		{"unencrypted", "", NewOptions{}, 1336, []uint32{1, 2, 3, 4}, 1},
		{"long password", strings.Repeat("x", 200), NewOptions{}, 1388, []uint32{1, 2, 3, 4, 6, 7, 8}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw, made := newTestBag(t, c.password, c.opt)
			if len(raw) != c.length {
				t.Errorf("%d bytes, want %d", len(raw), c.length)
			}
			bag, err := Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			if bag.Classes[0].Number != c.first || !bytes.Equal(bag.marshal()[:60], raw[:60]) {
				t.Errorf("first class %d", bag.Classes[0].Number)
			}
			keys := mustUnlock(t, raw, c.password)
			if !slices.Equal(keys.Classes(), c.open) || !slices.Equal(made.Classes(), c.open) {
				t.Errorf("open %v and %v", keys.Classes(), made.Classes())
			}
			key := FileKey{1, 2, 3}
			a, err := made.Wrap(ClassUntilFirstUnlock, key)
			if err != nil {
				t.Fatal(err)
			}
			if back, err := keys.Unwrap(a); err != nil || back != key {
				t.Errorf("unwrap: %v", err)
			}
			again, _ := newTestBag(t, c.password, c.opt)
			if !bytes.Equal(raw, again) {
				t.Error("the same random stream gives another keybag")
			}
		})
	}
}

func TestNewReportsShortRandomness(t *testing.T) {
	if _, _, err := New(bytes.NewReader(make([]byte, 100)), []byte("x"), NewOptions{Iter: 1, DPIC: 1}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
}

// TestPasswordKey compares the derivation with the standard library, at
// numbers of rounds around multiples of roundsPerStep.
func TestPasswordKey(t *testing.T) {
	for _, rounds := range []uint32{1, 2, roundsPerStep - 1, roundsPerStep, roundsPerStep + 1, roundsPerStep + 2, 2*roundsPerStep + 1} {
		bag := &Bag{Iter: rounds, Salt: []byte("salt"), hasDPIC: true, DPIC: rounds, DPSL: []byte("longer salt")}
		var last, total uint64
		got, err := bag.passwordKey(context.Background(), []byte("pw"), func(d, n uint64) {
			if d < last || d > n {
				t.Errorf("progress %d after %d of %d", d, last, n)
			}
			last, total = d, n
		})
		if err != nil {
			t.Fatal(err)
		}
		if last != 3*uint64(rounds) || total != last {
			t.Errorf("%d rounds: progress ends at %d of %d", rounds, last, total)
		}
		first, _ := pbkdf2.Key(sha256.New, "pw", bag.DPSL, int(rounds), 32)
		want, _ := pbkdf2.Key(sha1.New, string(first), bag.Salt, int(rounds), 32)
		if !bytes.Equal(got[:], want) {
			t.Errorf("%d rounds: wrong key", rounds)
		}
	}
}

// Devices use the bytes of a password; people know its text.
func TestUnlockText(t *testing.T) {
	const composed, decomposed = "p\u00e4ss", "pa\u0308ss"
	for _, made := range []string{composed, decomposed} {
		raw, _ := newTestBag(t, made, NewOptions{Iter: 1, DPIC: 1})
		bag, err := Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, typed := range []string{composed, decomposed} {
			keys, form, err := bag.UnlockText(t.Context(), []byte(typed), nil)
			if err != nil || string(form) != made {
				t.Fatalf("%q typed as %q: %q, %v", made, typed, form, err)
			}
			keys.Destroy()
			if _, err := bag.Unlock(t.Context(), []byte(typed), nil); (err == nil) != (typed == made) {
				t.Errorf("%q is unlocked by the bytes %q: %v", made, typed, err)
			}
		}
		if _, form, err := bag.UnlockText(t.Context(), []byte("pass"), nil); form != nil || !errors.Is(err, ErrWrongPassword) {
			t.Errorf("another password: %q, %v", form, err)
		}
	}
}

func TestUnlockCancelled(t *testing.T) {
	raw, _ := newTestBag(t, "pw", NewOptions{})
	bag, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	bag.DPIC = MaxRounds
	ctx, cancel := context.WithCancel(context.Background())
	calls := 0
	_, err = bag.Unlock(ctx, []byte("pw"), func(_, _ uint64) {
		if calls++; calls == 3 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || calls != 3 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

func TestUnlockRefuses(t *testing.T) {
	raw, _ := newTestBag(t, "pw", NewOptions{})
	for _, c := range []struct {
		name   string
		change func(*Bag)
		want   error
	}{
		{"too many DPIC", func(b *Bag) { b.DPIC = MaxRounds + 1 }, ErrTooManyRounds},
		{"too many ITER", func(b *Bag) { b.Iter = 1 << 31 }, ErrTooManyRounds},
		{"no ITER", func(b *Bag) { b.Iter = 0 }, ErrMalformed},
		{"no DPIC", func(b *Bag) { b.DPIC = 0 }, ErrMalformed},
		{"no salt", func(b *Bag) { b.Salt = nil }, ErrMalformed},
		{"no classes", func(b *Bag) { b.Classes = nil }, ErrMalformed},
		{"no password class", func(b *Bag) { b.Classes = b.Classes[:1]; b.Classes[0].Wrap = WrapDevice }, ErrMalformed},
		{"all classes broken", func(b *Bag) {
			for i := range b.Classes {
				b.Classes[i].WrappedKey = nil
			}
		}, ErrWrongPassword},
		{"second stage missing", func(b *Bag) { b.DPSL = nil }, ErrWrongPassword},
	} {
		t.Run(c.name, func(t *testing.T) {
			bag, err := Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			c.change(bag)
			if keys, err := bag.Unlock(context.Background(), []byte("pw"), nil); !errors.Is(err, c.want) || keys != nil {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestDamagedBag(t *testing.T) {
	raw, made := newTestBag(t, "pw", NewOptions{})
	bag, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	bag.Classes[2].WrappedKey[7] ^= 1
	bag.Classes[6].WrappedKey = bag.Classes[6].WrappedKey[:39]
	keys, err := bag.Unlock(context.Background(), []byte("pw"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := keys.Damaged(); !slices.Equal(got, []uint32{3, 7}) {
		t.Errorf("damaged %v", got)
	}
	blob, err := made.Wrap(3, FileKey{9})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Unwrap(blob); !errors.Is(err, ErrDamagedClass) || !errors.Is(err, ErrNoClass) {
		t.Errorf("unwrap in a damaged class: %v", err)
	}
}

func TestOddClasses(t *testing.T) {
	raw, _ := newTestBag(t, "pw", NewOptions{})
	bag, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	bag.Classes[3].Number = 17
	bag.Classes[2].Number = 0x80000003
	odd := bag.marshal()
	odd = append(odd, "XTRA\x00\x00\x00\x01z"...)
	back, err := Parse(odd)
	if err != nil {
		t.Fatal(err)
	}
	last := back.Classes[len(back.Classes)-1]
	if len(last.Unknown) != 1 || last.Unknown[0].Tag != "XTRA" {
		t.Errorf("unknown tag: %v", last.Unknown)
	}
	keys := mustUnlock(t, odd, "pw")
	if got := keys.Classes(); !slices.Equal(got, []uint32{1, 2, 6, 7, 8, 17, 0x80000003}) {
		t.Errorf("open %v", got)
	}
}

func TestOuterDataRecord(t *testing.T) {
	raw, _ := newTestBag(t, "pw", NewOptions{})
	outer := binary.BigEndian.AppendUint32([]byte("DATA"), uint32(len(raw)))
	outer = append(append(outer, raw...), "SIGN\x00\x00\x00\x00"...)
	mustUnlock(t, outer, "pw")
}

func TestParseMalformed(t *testing.T) {
	raw, _ := newTestBag(t, "pw", NewOptions{})
	cases := map[string][]byte{
		"empty":        nil,
		"text":         []byte("not a keybag"),
		"cut":          raw[:len(raw)-1],
		"tail":         append(slices.Clone(raw), 1, 2, 3),
		"huge record":  []byte("VERS\xff\xff\xff\xff"),
		"short number": []byte("VERS\x00\x00\x00\x01\x05"),
		"short uuid":   []byte("UUID\x00\x00\x00\x01\x05"),
		"too large":    make([]byte, maxBagLen+1),
		"many classes": bytes.Repeat(raw[len(raw)-108:len(raw)-84], maxClasses+2),
		"no UUID":      []byte("VERS\x00\x00\x00\x04\x00\x00\x00\x05"),
	}
	for name, b := range cases {
		if _, err := Parse(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseDoesNotAlias(t *testing.T) {
	raw, _ := newTestBag(t, "pw", NewOptions{})
	bag, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	clear(raw)
	if _, err := bag.Unlock(context.Background(), []byte("pw"), nil); err != nil {
		t.Error(err)
	}
}

func TestUnwrapRefuses(t *testing.T) {
	_, keys := newTestBag(t, "pw", NewOptions{})
	good, err := keys.Wrap(4, FileKey{5})
	if err != nil {
		t.Fatal(err)
	}
	withClass := func(n uint32) []byte {
		b := slices.Clone(good)
		binary.LittleEndian.PutUint32(b, n)
		return b
	}
	broken := slices.Clone(good)
	broken[43] ^= 0x80
	for _, c := range []struct {
		name string
		blob []byte
		want error
	}{
		{"172 bytes", make([]byte, 172), ErrUnsupportedKey},
		{"none", nil, ErrUnsupportedKey},
		{"no such class", withClass(17), ErrNoClass},
		{"device class", withClass(11), ErrDeviceBound},
		{"other class", withClass(3), ErrUnwrap},
		{"bit flip", broken, ErrUnwrap},
	} {
		if _, err := keys.Unwrap(c.blob); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := keys.Wrap(17, FileKey{}); !errors.Is(err, ErrNoClass) {
		t.Errorf("wrap: %v", err)
	}
	inside := keys.open[4]
	keys.Destroy()
	if *inside != [32]byte{} {
		t.Error("Destroy leaves the key in memory")
	}
	if _, err := keys.Unwrap(good); !errors.Is(err, ErrNoClass) {
		t.Errorf("after Destroy: %v", err)
	}
}

func TestFileKeyIsNeverPrinted(t *testing.T) {
	key := FileKey{0xab, 0xcd, 0xef}
	var log bytes.Buffer
	// Omit the time, since its digits may look like a key.
	timeless := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{ReplaceAttr: timeless})).Info("x", "key", key)
	fmt.Fprintf(&log, "%v %+v %#v %x %X %s %d %q", key, key, key, key, key, key, key, key)
	fmt.Fprintf(&log, "%v", struct{ K FileKey }{key})
	for _, leak := range []string{"abcdef", "ABCDEF", "171", "0xab"} {
		if strings.Contains(log.String(), leak) {
			t.Errorf("printed: %s", log.String())
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, opt := range []NewOptions{{}, {OneStage: true}} {
		raw, _ := newTestBag(f, "pw", opt)
		f.Add(raw)
	}
	f.Add([]byte("DATA\x00\x00\x00\x08UUID\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		bag, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("untyped error %v", err)
			}
			return
		}
		bag.Iter, bag.DPIC = min(bag.Iter, 2), min(bag.DPIC, 2)
		keys, err := bag.Unlock(context.Background(), []byte("pw"), nil)
		if (err == nil) == (keys == nil) {
			t.Errorf("keys %t, error %v", keys != nil, err)
		}
	})
}

func FuzzUnwrap(f *testing.F) {
	_, keys := newTestBag(f, "pw", NewOptions{})
	good, err := keys.Wrap(3, FileKey{1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(make([]byte, 172))
	f.Add([]byte{11, 0, 0, 0})
	f.Fuzz(func(t *testing.T, blob []byte) {
		key, err := keys.Unwrap(blob)
		if err != nil {
			return
		}
		again, err := keys.Wrap(binary.LittleEndian.Uint32(blob), key)
		if err != nil || !bytes.Equal(again, blob) {
			t.Errorf("unwraps, but wraps to %x: %v", again, err)
		}
	})
}
