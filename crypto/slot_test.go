package crypto

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

var cheap = Cost{Time: 1, MemoryKiB: 8, Threads: 1}

func testSlot(t testing.TB) []byte {
	t.Helper()
	info := SlotInfo{Kind: RecoverySlot, Label: "drawer", Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	b, err := NewSlot(seeded(1), testKey, []byte("password"), cheap, info)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSlot(t *testing.T) {
	t.Parallel()
	b := testSlot(t)
	s, err := ParseSlot(b)
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.Open([]byte("password"))
	if err != nil || key != testKey {
		t.Fatal("the slot does not return the master key", err)
	}
	info, err := s.Info(key)
	if err != nil || info.Label != "drawer" || info.Kind != RecoverySlot || info.Created.Year() != 2026 {
		t.Errorf("%+v, %v", info, err)
	}
	for _, wrong := range []string{"", "Password", "password ", "passwor"} {
		if key, err := s.Open([]byte(wrong)); !errors.Is(err, ErrWrongPassword) || key != (Key{}) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	if _, err := s.Info(Key{9}); !errors.Is(err, ErrAuth) {
		t.Errorf("info with another key: %v", err)
	}
	if bytes.Contains(b, []byte("drawer")) || bytes.Contains(b, []byte("recovery")) {
		t.Error("the description of the slot is not sealed")
	}
}

// A slot whose sealed fields were swapped cannot be opened.
func TestSlotFieldsDoNotMix(t *testing.T) {
	t.Parallel()
	var f slotFile
	if err := json.Unmarshal(testSlot(t), &f); err != nil {
		t.Fatal(err)
	}
	s := Slot{KDF: KDF{f.Time, f.MemoryKiB, f.Threads, f.Salt}, master: f.Info, info: f.Master}
	if _, err := s.Open([]byte("password")); !errors.Is(err, ErrWrongPassword) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Info(testKey); err == nil {
		t.Error("the sealed master key was taken for info")
	}
}

func TestSlotLimits(t *testing.T) {
	t.Parallel()
	change := func(fn func(*slotFile)) []byte {
		var f slotFile
		if err := json.Unmarshal(testSlot(t), &f); err != nil {
			t.Fatal(err)
		}
		fn(&f)
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, fn := range map[string]func(*slotFile){
		"version":         func(f *slotFile) { f.Version = 2 },
		"kdf":             func(f *slotFile) { f.KDF = "scrypt" },
		"no passes":       func(f *slotFile) { f.Time = 0 },
		"many passes":     func(f *slotFile) { f.Time = MaxTime + 1 },
		"no memory":       func(f *slotFile) { f.MemoryKiB = 0 },
		"much memory":     func(f *slotFile) { f.MemoryKiB = MaxMemoryKiB + 1 },
		"no threads":      func(f *slotFile) { f.Threads = 0 },
		"many threads":    func(f *slotFile) { f.Threads = 2 },
		"minutes of work": func(f *slotFile) { f.MemoryKiB, f.Time = MaxMemoryKiB, 200 },
		"short salt":      func(f *slotFile) { f.Salt = f.Salt[:15] },
		"long salt":       func(f *slotFile) { f.Salt = make([]byte, 65) },
		"short master":    func(f *slotFile) { f.Master = f.Master[1:] },
		"no master":       func(f *slotFile) { f.Master = nil },
	} {
		if _, err := ParseSlot(change(fn)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := ParseSlot(change(func(*slotFile) {})); err != nil {
		t.Error(err)
	}
	if _, err := ParseSlot(bytes.Repeat([]byte(" "), MaxSlotSize+1)); err == nil {
		t.Error("a file above the limit was accepted")
	}
	if _, err := NewSlot(seeded(1), testKey, nil, Cost{}, SlotInfo{}); !errors.Is(err, ErrBadKDF) {
		t.Errorf("a slot without any cost: got %v", err)
	}
}

func TestKDFBounds(t *testing.T) {
	t.Parallel()
	salt := make([]byte, 32)
	for _, ok := range []KDF{
		{1, MinMemoryKiB, 1, salt}, {1, 64 << 10, 4, salt}, {64, 64 << 10, 4, salt},
		{1, MaxMemoryKiB, 255, salt}, {128, MaxMemoryKiB, 1, salt}, {MaxTime, 8, 1, salt}, {1, 16, 2, salt[:16]},
	} {
		if err := ok.Check(); err != nil {
			t.Errorf("%d, %d, %d: %v", ok.Time, ok.MemoryKiB, ok.Threads, err)
		}
	}
	for _, bad := range []KDF{
		{0, 8, 1, salt}, {MaxTime + 1, 8, 1, salt}, {1, 7, 1, salt}, {1, MaxMemoryKiB + 1, 1, salt}, {1, 8, 0, salt},
		{1, 15, 2, salt}, {129, MaxMemoryKiB, 1, salt}, {1, 8, 1, nil}, {1, 8, 1, make([]byte, 65)},
	} {
		if err := bad.Check(); !errors.Is(err, ErrBadKDF) {
			t.Errorf("%d, %d, %d: got %v", bad.Time, bad.MemoryKiB, bad.Threads, err)
		}
		if _, err := bad.key([]byte("x")); !errors.Is(err, ErrBadKDF) {
			t.Errorf("key: got %v", err)
		}
	}
}

// The default is at least the second recommended option of RFC 9106, section 4.
func TestDefaultCost(t *testing.T) {
	t.Parallel()
	kdf, err := DefaultCost().withSalt(seeded(1))
	if err != nil || kdf.Check() != nil {
		t.Fatal(err, kdf.Check())
	}
	if kdf.Time < 3 || kdf.MemoryKiB < 64<<10 || kdf.Threads != 4 || len(kdf.Salt) < 16 {
		t.Errorf("%+v is less than recommended", kdf)
	}
}

func FuzzParseSlot(f *testing.F) {
	f.Add(testSlot(f))
	f.Add([]byte(`{"version":1,"kdf":"argon2id"}`))
	f.Add([]byte(strings.Repeat("[", 100)))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSlot(b)
		if err != nil {
			return
		}
		if err := s.KDF.Check(); err != nil || len(s.master) != KeySize+Overhead {
			t.Fatalf("out of bounds: %+v, %v", s.KDF, err)
		}
		if info, err := s.Info(Key{7}); err == nil {
			t.Fatalf("opened with a wrong key: %+v", info)
		}
	})
}

func TestRecoveryKey(t *testing.T) {
	t.Parallel()
	for seed := range byte(50) {
		text, err := NewRecoveryKey(seeded(seed))
		if err != nil {
			t.Fatal(err)
		}
		if len(text) != 41 || strings.ContainsAny(text, "ILOUilou") || strings.ToUpper(text) != text {
			t.Fatalf("not fit for copying by hand: %d letters", len(text))
		}
		plain := strings.ReplaceAll(text, "-", "")
		for how, typed := range map[string]string{
			"unchanged":  text,
			"lower case": strings.ToLower(text),
			"look-alike": strings.NewReplacer("0", "O", "1", "l").Replace(text),
			"others":     strings.NewReplacer("0", "o", "1", "I").Replace(text),
			"spaces":     " " + strings.ReplaceAll(text, "-", " ") + " ",
			"no groups":  plain,
			"bad groups": plain[:10] + "-" + plain[10:] + "\t",
		} {
			if got, err := Secret(typed); err != nil || string(got) != text {
				t.Errorf("key %d, %s: not understood: %v", seed, how, err)
			}
		}
	}
}

// The checksum finds a wrong letter and swapped neighbours. Its 20 bits can miss some
// of these errors, but miss none with this seed.
func TestRecoveryTypos(t *testing.T) {
	t.Parallel()
	text, err := NewRecoveryKey(seeded(9))
	if err != nil {
		t.Fatal(err)
	}
	for i := range text {
		if text[i] == '-' {
			continue
		}
		for _, c := range "0123456789ABCDEFGHJKMNPQRSTVWXYZU" {
			if byte(c) == text[i] {
				continue
			}
			typo := text[:i] + string(c) + text[i+1:]
			if got, err := Secret(typo); !errors.Is(err, ErrRecoveryTypo) || got != nil {
				t.Errorf("letter %d as %c: %v", i, c, err)
			}
		}
		if i+1 < len(text) && text[i+1] != '-' && text[i+1] != text[i] {
			swapped := text[:i] + text[i+1:i+2] + text[i:i+1] + text[i+2:]
			if _, err := Secret(swapped); !errors.Is(err, ErrRecoveryTypo) {
				t.Errorf("letters %d and %d swapped: %v", i, i+1, err)
			}
		}
	}
}

func TestPasswordsAreUnchanged(t *testing.T) {
	t.Parallel()
	for _, p := range []string{
		"", "x", "correct horse battery staple", " leading and trailing ", "o0O-iIl", "パスワード", "\xff\xfe",
		// Six words of six letters. Recovery keys can have all these letters, too.
		"copper-magnet-orchid-planet-bronze-simple", "Parrot-badger-canary-ferret-gopher-marmot",
		"nektar-hamster-2-and-more-words-to-get-to-36", strings.Repeat("a", 36), strings.Repeat("0", 35),
		"zzzzzz-zzzzzz-zzzzzz-zzzzzz-zzzzzz-zz1234",
	} {
		got, err := Secret(p)
		if p == "zzzzzz-zzzzzz-zzzzzz-zzzzzz-zzzzzz-zz1234" {
			if !errors.Is(err, ErrRecoveryTypo) {
				t.Errorf("%q: got %v", p, err)
			}
			continue
		}
		if err != nil || string(got) != p {
			t.Errorf("%q became %q, %v", p, got, err)
		}
	}
}

func FuzzSecret(f *testing.F) {
	f.Add("copper-magnet-orchid-planet-bronze-simple")
	f.Add("0123456789ABCDEFGHJKMNPQRSTVWXYZ0123")
	f.Fuzz(func(t *testing.T, typed string) {
		got, err := Secret(typed)
		if err != nil {
			if !errors.Is(err, ErrRecoveryTypo) {
				t.Fatal(err)
			}
			return
		}
		// Secret must return its own results unchanged.
		again, err := Secret(string(got))
		if err != nil || !bytes.Equal(again, got) {
			t.Fatal(fmt.Sprintf("%q becomes %q becomes %q", typed, got, again), err)
		}
	})
}
