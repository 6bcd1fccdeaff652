package tree

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"math"
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Nanosecond, AtNanosecond and Compare agree with arithmetic on big integers.
func TestTimes(t *testing.T) {
	exact := func(u Time) *big.Int {
		n := new(big.Int).Mul(big.NewInt(u.sec), big.NewInt(nanoseconds))
		return n.Add(n, big.NewInt(int64(u.nsec)))
	}
	rapid.Check(t, func(t *rapid.T) {
		u, v := genTime(t), genTime(t)
		n, wide := u.Nanosecond()
		if want := exact(u); wide == want.IsInt64() || !wide && want.Int64() != n {
			t.Fatalf("%v: %d, wide %v, want %v", u, n, wide, want)
		}
		if !wide && AtNanosecond(n) != u {
			t.Fatalf("%v is %d ns, which is %v", u, n, AtNanosecond(n))
		}
		if At(u.Time()) != u {
			t.Fatalf("%v became %v", u, At(u.Time()))
		}
		if got := u.Compare(v); got != exact(u).Cmp(exact(v)) || got != -v.Compare(u) || (got == 0) != (u == v) {
			t.Fatalf("%v compared with %v: %d", u, v, got)
		}
	})
	for _, n := range []int64{math.MinInt64, math.MinInt64 + 1, -nanoseconds, -1, 0, 1, math.MaxInt64} {
		if got, wide := AtNanosecond(n).Nanosecond(); got != n || wide {
			t.Errorf("%d: %d, wide %v", n, got, wide)
		}
		if got := AtNanosecond(n).Time(); cmp.Compare(got.UnixNano(), n) != 0 {
			t.Errorf("%d: %v", n, got)
		}
	}
	if at := AtSecond(13_569_465_600); at.String() != "2400-01-01T00:00:00Z" || at != At(time.Date(2400, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Error(at)
	}
}

// Times are encoded as section 11 of docs/format.md says.
func TestWideTimeBytes(t *testing.T) {
	for _, test := range []struct {
		time Time
		want string // flags, path, mode, time
	}{
		{AtNanosecond(1_500_000_001), "01 0161 00 012f685900000000"},
		{latest, "01 0161 00 ffffffffffffff7f"},
		{Time{latest.sec, latest.nsec + 1}, "41 0161 00 047dc12502000000 80b0cb9703"},
		{Time{13_569_465_600, 123_456_789}, "41 0161 00 009dcd2803000000 959aef3a"},
		{AtSecond(-62_135_596_800), "41 0161 00 00096e88f1ffffff 00"},
	} {
		e := Entry{Path: "a", Kind: Dir, ModTime: test.time}
		b := e.append(nil)
		n, err := ParseNode((&Node{Entries: []Entry{e}}).encode())
		if err != nil || n.Entries[0].ModTime != test.time {
			t.Errorf("%v: read back %+v, %v", test.time, n, err)
		}
		if want, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(test.want), []byte(" "), nil))); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%v: %x, want %x, %v", test.time, b, want, err)
		}
	}
}

// ParseNode refuses a wide time that an int64 of nanoseconds can hold, and a fraction of
// a second or more.
func TestWrongWideTimes(t *testing.T) {
	good := (&Node{Entries: []Entry{{Path: "a", Kind: Dir, ModTime: Time{13_569_465_600, 0}}}}).encode()
	for _, wrong := range []struct {
		sec  []byte
		nsec []byte
	}{
		{[]byte{0, 0, 0, 0, 0, 0, 0, 0}, []byte{0}},
		{good[len(good)-9 : len(good)-1], []byte{0x80, 0x94, 0xeb, 0xdc, 0x03}},
	} {
		b := append(append(bytes.Clone(good[:len(good)-9]), wrong.sec...), wrong.nsec...)
		if n, err := ParseNode(b); !errors.Is(err, ErrDamaged) {
			t.Errorf("%x was read as %+v, %v", b, n, err)
		}
	}
}
