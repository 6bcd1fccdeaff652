package faults

import (
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Fault{
		"upload:3=cut":               {At: StepUpload, Nth: 3, Do: Cut},
		"begin=fail 208":             {At: StepBegin, Do: Fail, Code: 208},
		"begin=wait 1m30s":           {At: StepBegin, Do: Wait, For: 90 * time.Second},
		"space=huge 1000000000000":   {At: StepSpace, Do: Huge, Bytes: 1e12},
		"upload=attack mkdir-dotdot": {At: StepUpload, Do: Attack, Name: "mkdir-dotdot"},
		"@50000=cut":                 {After: 50000, Do: Cut},
	} {
		got, err := Parse(text)
		if err != nil || got != want {
			t.Errorf("%q parses as %+v, %v", text, got, err)
		}
		if got.String() != text {
			t.Errorf("%q is written as %q", text, got)
		}
	}
	for _, text := range []string{"", "cut", "upload", "upload=", "nowhere=cut", "upload=explode", "@0=cut", "@-3=cut", "@9=bye", "@x=cut", "upload:x=cut",
		"begin=fail", "begin=fail 0", "begin=wait soon", "begin=wait -1s", "space=huge -1", "upload=attack nothing", "upload=cut 3", "upload:-1=cut"} {
		if f, err := Parse(text); err == nil {
			t.Errorf("%q parses as %+v", text, f)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"upload:3=cut", "@50000=cut", "begin=wait 1s", "upload=attack list-absolute"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		fault, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(fault.String())
		if err != nil || again != fault {
			t.Errorf("%q parses as %+v, which is written as %q and parses as %+v, %v", text, fault, fault, again, err)
		}
	})
}
