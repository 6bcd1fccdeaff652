package lab

import (
	"strings"
	"testing"
)

// Whatever a state file holds, it names no folder outside of its own.
func FuzzParseState(f *testing.F) {
	f.Add([]byte(`{"devices":1,"scale":"tiny","day":3,"each":[{"udid":"a","restored":"state-a/restored-1/a"}]}`))
	f.Add([]byte(`{"devices":1,"each":[{"restored":"../../etc"}]}`))
	f.Add([]byte(`{"devices":-1,"day":99999999}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := parseState(b)
		if err != nil {
			return
		}
		if st.Devices < 1 || st.Devices > len(st.Each) || st.Day < 0 || st.Day > maxDays {
			t.Errorf("%+v", st)
		}
		for _, d := range st.Each {
			if d.Restored != "" && (d.Restored[0] == '/' || d.Restored == ".." || strings.HasPrefix(d.Restored, "../")) {
				t.Errorf("folder %q", d.Restored)
			}
		}
	})
}
