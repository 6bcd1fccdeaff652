package main

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// recipeCommand matches a command in a hint of check.
var recipeCommand = regexp.MustCompile("`(snap [^`]*)`")

// checkResult is a part of the output of check.
type checkResult struct {
	Clean    bool `json:"clean"`
	Problems []struct {
		File  string `json:"file"`
		Hint  string `json:"hint"`
		Fatal bool   `json:"fatal"`
	} `json:"problems"`
}

func (p *patient) check() checkResult {
	p.t.Helper()
	var out, messages bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &messages, options: p.options()}
	a.through = p.through
	a.run(context.Background(), []string{"-r", filepath.Join(p.dir, "repo"), "check", "--read-data", "--json"})
	var res checkResult
	if err := json.Unmarshal(out.Bytes(), &res); err != nil {
		p.t.Fatalf("check: %v: %s%s", err, &out, &messages)
	}
	return res
}

// recipe returns the commands of the hints, each once, in their order. With a copy they
// are those that need one, if there are any; otherwise all others.
func recipe(res checkResult, withCopy bool) []string {
	var fromCopy, alone []string
	for _, p := range res.Problems {
		for _, m := range recipeCommand.FindAllStringSubmatch(p.Hint, -1) {
			list := &alone
			if strings.Contains(m[1], "COPY") {
				list = &fromCopy
			}
			if !slices.Contains(*list, m[1]) {
				*list = append(*list, m[1])
			}
		}
	}
	if withCopy && len(fromCopy) > 0 {
		return fromCopy
	}
	return alone
}

// TestRecipes damages a file of each kind in each way, and follows the advice of check as
// it is printed: with a copy, and without. Afterwards check finds nothing.
func TestRecipes(t *testing.T) {
	p := newDamagePatient(t)
	// Against a denied permission, no command of snap helps; check says so.
	ways := slices.DeleteFunc(slices.Clone(damageWays), func(way string) bool {
		return slices.Contains([]string{"none", "denied", "foreign files beside"}, way)
	})
	total := len(damageKinds) * len(ways) * 2
	for _, i := range faultpoint.Choose(t, total, 25) {
		withCopy, rest := i%2 == 0, i/2
		way, kind := ways[rest%len(ways)], rest/len(ways)
		base := p.bases(kind)
		one := &patient{t: t, dir: p.dir, stores: map[string]backend.Backend{}, seed: 150}
		for name, be := range base {
			one.stores[name] = be.(*memory.Backend).Clone()
		}
		file := damageKinds[kind].file(t, base["repo"])
		one.stores["repo"] = hurt(t, base["repo"], file, way)
		found := one.check()
		for _, f := range found.Problems {
			if !recipeCommand.MatchString(f.Hint) && f.Fatal {
				t.Errorf("%s %s: check names no command for %s: %q", damageKinds[kind].name, way, f.File, f.Hint)
			}
		}
		var followed []string
		for _, line := range recipe(found, withCopy) {
			line = strings.TrimPrefix(line, "snap ")
			switch {
			case line == "key add", strings.Contains(line, "DEVICE"):
				continue // asks for a password
			case line == "import --rescan":
				line = "import --rescan DAY2" // the other backup is no longer there
			}
			code, out := one.run(line)
			followed = append(followed, line)
			// A repair without a copy says that something is lost. What follows deals with it.
			tells := code == exitDamaged && strings.HasPrefix(line, "repair ") && !strings.Contains(line, "--from")
			if code != 0 && !tells && !(code == exitInUse && damageKinds[kind].name == "lock") {
				t.Errorf("%s %s: snap %s: exit code %d: %s", damageKinds[kind].name, way, line, code, out)
			}
		}
		if left := one.check(); !left.Clean || len(left.Problems) > 0 {
			t.Errorf("%s %s: after %q, check still finds %+v", damageKinds[kind].name, way, followed, left.Problems)
		}
	}
}
