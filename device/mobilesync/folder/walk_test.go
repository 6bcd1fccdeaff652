package folder

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"testing"
	"testing/fstest"
)

// faulty is a Source of which some parts cannot be read.
type faulty struct {
	files fstest.MapFS
	lists map[string]error // by directory; half of its entries are listed
	stats map[string]error // by path
}

func (s faulty) Open(string) (Content, Stat, error) { return nil, Stat{}, fs.ErrInvalid }
func (s faulty) Lstat(string) (Stat, error)         { return Stat{}, fs.ErrInvalid }
func (s faulty) Close() error                       { return nil }

func (s faulty) List(path string) ([]Entry, error) {
	name := path
	if path == "" {
		name = "."
	}
	found, err := s.files.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var out []Entry
	for _, d := range found {
		e := Entry{Name: d.Name(), Stat: Stat{Mode: d.Type()}}
		if err := s.stats[join(path, d.Name())]; err != nil {
			e = Entry{Name: d.Name(), Err: err}
		}
		out = append(out, e)
	}
	if err := s.lists[path]; err != nil {
		return out[:len(out)/2], err
	}
	return out, nil
}

// What cannot be read is named, and everything else is found.
func TestWalk(t *testing.T) {
	t.Parallel()
	bad := errors.New("input/output error")
	files := fstest.MapFS{}
	for _, name := range []string{"ab/1", "ab/2", "cd/1", "cd/2", "ef/1/x", "ef/1/y", "ef/2", "top"} {
		files[name] = &fstest.MapFile{}
	}
	all := []string{"ab", "ab/1", "ab/2", "cd", "cd/1", "cd/2", "ef", "ef/1", "ef/1/x", "ef/1/y", "ef/2", "top"}
	for name, c := range map[string]struct {
		lists, stats map[string]error
		lost         []string
		passed       []string
		err          error
	}{
		"nothing":              {},
		"a folder":             {lists: map[string]error{"ab": bad}, lost: []string{"ab/2"}, passed: []string{"ab"}},
		"a folder in a folder": {lists: map[string]error{"ef/1": bad}, lost: []string{"ef/1/y"}, passed: []string{"ef/1"}},
		"a file":               {stats: map[string]error{"cd/1": bad}, lost: []string{"cd/1"}, passed: []string{"cd/1"}},
		"a name at the top":    {stats: map[string]error{"cd": bad}, lost: []string{"cd", "cd/1", "cd/2"}, passed: []string{"cd"}},
		"several": {
			lists: map[string]error{"ab": bad, "cd": fs.ErrPermission}, stats: map[string]error{"ef/2": bad},
			lost: []string{"ab/2", "cd/2", "ef/2"}, passed: []string{"ab", "cd", "ef/2"},
		},
		"the top":                 {lists: map[string]error{"": bad}, err: bad},
		"a folder that is gone":   {lists: map[string]error{"ab": fs.ErrNotExist}, err: fs.ErrNotExist},
		"a folder that is a link": {lists: map[string]error{"ef/1": ErrLink}, err: ErrLink},
	} {
		var passed []string
		got, err := collect(Walk(t.Context(), faulty{files, c.lists, c.stats}, func(path string, err error) error {
			if err == nil {
				t.Errorf("%s: no error for %s", name, path)
			}
			passed = append(passed, path)
			return nil
		}))
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v", name, err)
		}
		want := slices.DeleteFunc(slices.Clone(all), func(path string) bool { return slices.Contains(c.lost, path) })
		if c.err == nil && (!slices.Equal(got, want) || !slices.Equal(passed, c.passed)) {
			t.Errorf("%s: got %q, passed %q", name, got, passed)
		}
		// If skip returns the error, Walk ends at the first of them.
		for first := range maps.Values(c.lists) {
			if len(c.lists)+len(c.stats) == 1 {
				refuse := func(_ string, err error) error { return err }
				if _, err := collect(Walk(context.Background(), faulty{files, c.lists, c.stats}, refuse)); !errors.Is(err, first) {
					t.Errorf("%s: Walk returns %v", name, err)
				}
			}
		}
	}
}

func collect(seq func(func(File, error) bool)) (paths []string, err error) {
	for f, err := range seq {
		if err != nil {
			return paths, err
		}
		paths = append(paths, f.Path)
	}
	return paths, nil
}
