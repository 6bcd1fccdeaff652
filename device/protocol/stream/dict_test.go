package stream

import (
	"errors"
	"math"
	"testing"

	"github.com/snap-backup/snap/device/protocol/plist"
)

func TestDictChecksTypes(t *testing.T) {
	d := Dict{"s": "x", "b": true, "n": int64(1), "f": 3.0, "half": 0.5, "u": uint64(math.MaxUint64), "d": map[string]any{"in": "y"}, "l": []any{1}}
	if d.String("b") != "" || d.Bool("s") || !d.Bool("n") || !d.Bool("b") || d.Data("s") != nil || d.Dict("s") != nil || d.List("s") != nil || !d.Time("s").IsZero() {
		t.Error("a value of another type was returned")
	}
	if d.Dict("d").String("in") != "y" || len(d.List("l")) != 1 {
		t.Error("containers")
	}
	for key, want := range map[string]bool{"n": true, "f": true, "half": false, "u": false, "s": false, "gone": false} {
		if _, ok := d.Int(key); ok != want {
			t.Errorf("Int(%s) is present: %v", key, ok)
		}
	}
	if Dict(nil).String("x") != "" || Dict(nil).Has("x") || Dict(nil).Dict("x").Dict("y") != nil {
		t.Error("a nil Dict has a value")
	}
	if _, err := Decode(make([]byte, MaxMessage+1)); !errors.Is(err, plist.ErrFormat) {
		t.Error(err)
	}
}
