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

// Passwords are text. Key files are bytes.
func TestSlotsOfPasswords(t *testing.T) {
	t.Parallel()
	const composed, decomposed = "p\u00e4ss", "pa\u0308ss"
	for _, test := range []struct {
		kind  SlotKind
		made  string
		opens map[string]bool
	}{
		{PasswordSlot, composed, map[string]bool{composed: true, decomposed: true, "pass": false}},
		{PasswordSlot, decomposed, map[string]bool{composed: true, decomposed: true, "pass": false}},
		{PasswordSlot, "\xe4", map[string]bool{"\xe4": true, "\u00e4": false}},
		{KeyFileSlot, decomposed, map[string]bool{decomposed: true}},
	} {
		made := []byte(test.made)
		b, err := NewSlot(seeded(1), testKey, made, cheap, SlotInfo{Kind: test.kind})
		if err != nil || string(made) != test.made {
			t.Fatalf("%q became %q: %v", test.made, made, err)
		}
		s, err := ParseSlot(b)
		if err != nil {
			t.Fatal(err)
		}
		for typed, opens := range test.opens {
			if key, err := s.Open([]byte(typed)); (err == nil) != opens || (key == testKey) != opens {
				t.Errorf("%s %q typed as %q: %v", test.kind, test.made, typed, err)
			}
		}
		// The secret of a new slot is the composed form.
		if _, err := s.unlock([]byte(composed)); test.kind == PasswordSlot && test.made == decomposed && err != nil {
			t.Error(err)
		}
		if _, err := s.unlock([]byte(decomposed)); test.kind == KeyFileSlot && err != nil {
			t.Error(err)
		}
	}
}

// A slot whose sealed fields were swapped cannot be opened.
func TestSlotFieldsDoNotMix(t *testing.T) {
	t.Parallel()
	var f slotFile
	if err := json.Unmarshal(testSlot(t), &f); err != nil {
		t.Fatal(err)
	}
	s := Slot{KDF: KDF{f.Time, f.MemoryKiB, f.Threads, f.Salt}, version: f.Version, master: f.Info, info: f.Master}
	if _, err := s.Open([]byte("password")); !errors.Is(err, ErrWrongPassword) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Info(testKey); err == nil {
		t.Error("the sealed master key was taken for info")
	}
}

// oldSlot returns a slot of version 1, as older programs made it.
func oldSlot(t testing.TB, seed byte, secret string, info SlotInfo) *Slot {
	t.Helper()
	kdf, err := cheap.withSalt(seeded(seed))
	if err != nil {
		t.Fatal(err)
	}
	kek, err := kdf.key([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := json.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	s := &Slot{KDF: kdf, version: unboundSlot}
	if s.master, err = NewSealer(kek, seeded(seed+1)).Seal(nil, testKey[:], []byte("snap v1 key slot master")); err != nil {
		t.Fatal(err)
	}
	if s.info, err = NewSealer(testKey.Derive(ForSlotInfo), seeded(seed+2)).Seal(nil, plain, []byte("snap v1 key slot info")); err != nil {
		t.Fatal(err)
	}
	b, err := s.bytes()
	if err != nil {
		t.Fatal(err)
	}
	if s, err = ParseSlot(b); err != nil {
		t.Fatal(err)
	}
	return s
}

// The description of a slot opens only with this slot. That of an older one opens with
// every older one.
func TestExchangedDescriptions(t *testing.T) {
	t.Parallel()
	slot := func(seed byte, secret, label string) *Slot {
		b, err := NewSlot(seeded(seed), testKey, []byte(secret), cheap, SlotInfo{Kind: PasswordSlot, Label: label})
		if err != nil {
			t.Fatal(err)
		}
		s, err := ParseSlot(b)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	mother, laptop := slot(1, "mother", "mother"), slot(5, "laptop", "laptop")
	old, older := oldSlot(t, 10, "old", SlotInfo{Label: "old"}), oldSlot(t, 20, "older", SlotInfo{Label: "older"})
	for name, s := range map[string]*Slot{
		"info exchanged":       {laptop.KDF, 2, laptop.master, mother.info},
		"master key exchanged": {mother.KDF, 2, laptop.master, mother.info},
		"parameters exchanged": {laptop.KDF, 2, mother.master, mother.info},
		"cost changed":         {KDF{2, 8, 1, mother.KDF.Salt}, 2, mother.master, mother.info},
		"called an older slot": {laptop.KDF, 1, laptop.master, mother.info},
		"info of an older one": {laptop.KDF, 2, laptop.master, old.info},
		"older, info of new":   {old.KDF, 1, old.master, laptop.info},
	} {
		b, err := s.bytes()
		if err != nil {
			t.Fatal(err)
		}
		if s, err = ParseSlot(b); err != nil {
			t.Fatal(err)
		}
		if info, err := s.Info(testKey); err == nil || s.Bound() != errors.Is(err, ErrExchanged) {
			t.Errorf("%s: got %+v, %v", name, info, err)
		}
	}
	// A new slot with the description of an older one does not open as an older one.
	mixed := Slot{laptop.KDF, 1, laptop.master, old.info}
	if _, err := mixed.Open([]byte("laptop")); !errors.Is(err, ErrWrongPassword) {
		t.Errorf("a new slot opens as an older one: %v", err)
	}
	// This is what newer slots are for:
	mixed = Slot{older.KDF, 1, older.master, old.info}
	if info, err := mixed.Info(testKey); err != nil || info.Label != "old" || mixed.Bound() {
		t.Errorf("got %+v, %v", info, err)
	}
}

// A slot has one spelling, so nobody can make another file of it that opens.
func TestOneSpellingOfASlot(t *testing.T) {
	t.Parallel()
	b := testSlot(t)
	for _, other := range [][]byte{
		bytes.TrimSuffix(b, []byte("\n")), append(bytes.Clone(b), ' '), bytes.Replace(b, []byte(`{"version"`), []byte(`{ "version"`), 1),
		bytes.Replace(b, []byte(`{`), []byte(`{"x":1,`), 1), bytes.Replace(b, []byte(`"kdf"`), []byte(`"KDF"`), 1),
	} {
		if _, err := ParseSlot(other); err == nil || bytes.Equal(b, other) {
			t.Errorf("accepted: %s", other)
		}
	}
}

func TestRenew(t *testing.T) {
	t.Parallel()
	secret := []byte("pa\u0308ss") // older programs did not normalise
	old := oldSlot(t, 1, string(secret), SlotInfo{Kind: PasswordSlot, Label: "old"})
	info, err := old.Info(testKey)
	if err != nil {
		t.Fatal(err)
	}
	renew := func(info SlotInfo) (*Slot, string) {
		o, err := old.Unlock([]byte("p\u00e4ss"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := o.Renew(info)
		if err != nil {
			t.Fatal(err)
		}
		s, err := ParseSlot(b)
		if err != nil {
			t.Fatal(err)
		}
		return s, string(b)
	}
	s, b := renew(info)
	if _, again := renew(info); again != b {
		t.Error("the same slot is renewed in two ways")
	}
	info.Label = "another"
	other, _ := renew(info)
	if bytes.Equal(other.info[:24], s.info[:24]) || bytes.Equal(other.master[:24], s.master[:24]) {
		t.Error("the nonce is used twice")
	}
	key, err := s.Open(secret)
	if err != nil || key != testKey || !s.Bound() || old.Bound() || s.KDF.Time != old.KDF.Time {
		t.Errorf("%+v, %v", s, err)
	}
	if got, err := s.Info(key); err != nil || got.Label != "old" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := other.Open([]byte("wrong")); !errors.Is(err, ErrWrongPassword) {
		t.Error(err)
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
		return append(b, '\n')
	}
	for name, fn := range map[string]func(*slotFile){
		"version 0":       func(f *slotFile) { f.Version = 0 },
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
	for name, newer := range map[string][]byte{
		"version":       change(func(f *slotFile) { f.Version = boundSlot + 1 }),
		"other members": []byte(`{"version":4,"kdf":"balloon","time":"long","master":{}}`),
	} {
		if _, err := ParseSlot(newer); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("a slot of a newer version (%s): got %v", name, err)
		}
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
	if old, err := oldSlot(f, 1, "old", SlotInfo{Kind: PasswordSlot}).bytes(); err == nil {
		f.Add(old)
	}
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
