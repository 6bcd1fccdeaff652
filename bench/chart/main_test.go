package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The charts in the documents are those of the stored reports.
func TestChartsOfDocuments(t *testing.T) {
	for kind, name := range map[string]string{"size": "thirty-days.json", "cpu": "ratios.json"} {
		got := filepath.Join(t.TempDir(), kind)
		if err := run([]string{kind, filepath.Join("..", "results", name), got}); err != nil {
			t.Fatal(err)
		}
		drawn, err := os.ReadFile(got)
		if err != nil {
			t.Fatal(err)
		}
		stored, err := os.ReadFile(filepath.Join("..", "..", "docs", "img", kind+".svg"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(drawn, stored) {
			t.Errorf("docs/img/%s.svg is not the chart of %s; draw it again, see main.go", kind, name)
		}
		if len(drawn) > 30<<10 {
			t.Errorf("%s.svg has %d bytes", kind, len(drawn))
		}
	}
}

const example = `{"series":{"days":2},"tools":[
	{"name":"snap","repository_bytes":[[10000000],[12000000,14000000,13000000]],"samples":{"first import":[{"cpu_ns":1},{"cpu_ns":3}]}},
	{"name":"restic","repository_bytes":[[20000000],[30000000]],"samples":{"first import":[{"cpu_ns":2},{"cpu_ns":4}]}},
	{"name":"reference","samples":{}}]}`

func TestReport(t *testing.T) {
	r, err := parseReport([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	names, sizes := r.sizes()
	if strings.Join(names, " ") != "snap restic" || sizes[0][1] != 13 || sizes[1][0] != 20 {
		t.Errorf("sizes of %v: %v", names, sizes)
	}
	names, bars := r.ratios()
	if strings.Join(names, " ") != "snap" || len(bars) != 1 || bars[0].ratios[0].String() != "0.62 (0.50–0.75)" {
		t.Errorf("ratios of %v: %v", names, bars)
	}
	svg, err := draw(r, "cpu")
	if err != nil || !strings.Contains(string(svg), "0.62 (0.50–0.75)") || !strings.Contains(string(svg), "first import") {
		t.Errorf("%v\n%s", err, svg)
	}
}

func TestRunTellsWhatIsWrong(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.json")
	if err := os.WriteFile(empty, []byte(`{"series":{"days":1}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "usage"},
		{[]string{"pie", empty, "out"}, `no chart "pie"`},
		{[]string{"size", empty, "out"}, "no sizes"},
		{[]string{"cpu", empty, "out"}, "no CPU times"},
		{[]string{"cpu", "main.go", "out"}, "not a report"},
	} {
		if err := run(tt.args); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.args, err, tt.want)
		}
	}
}

// Every report that can be read is drawn as well-formed XML, or refused.
func FuzzParseReport(f *testing.F) {
	f.Add([]byte(example))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseReport(b)
		if err != nil || r.Series.Days > 100 {
			return
		}
		for _, kind := range []string{"size", "cpu"} {
			svg, err := draw(r, kind)
			if err != nil {
				continue
			}
			dec := xml.NewDecoder(bytes.NewReader(svg))
			for err == nil {
				_, err = dec.Token()
			}
			if !errors.Is(err, io.EOF) {
				t.Errorf("%s: %v", kind, err)
			}
		}
	})
}
