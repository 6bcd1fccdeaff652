package structure

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const (
	root   = "../.."
	module = "github.com/snap-backup/snap/"
)

// A pkg is a package of this module, with the files for every operating
// system.
type pkg struct {
	name        string // its Go name
	comment     string
	imports     []string // of files that are not tests; a package of this module by its path below the module
	testImports []string
	lines       int // without tests
	functions   []function
}

type function struct {
	name  string
	lines int
	// table says that the function builds a command, so most of it is a list
	// of flags.
	table bool
}

// packages returns the packages by their path below the module.
var packages = sync.OnceValues(func() (map[string]*pkg, error) {
	found := map[string]*pkg{}
	err := filepath.WalkDir(root, func(file string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir():
			return skip(file)
		case path.Ext(file) != ".go":
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		dir = filepath.ToSlash(dir)
		if found[dir] == nil {
			found[dir] = &pkg{}
		}
		return found[dir].add(file)
	})
	return found, err
})

// skip returns filepath.SkipDir for folders without packages of this module.
func skip(dir string) error {
	if dir == root {
		return nil
	}
	if base := filepath.Base(dir); base == "testdata" || strings.HasPrefix(base, ".") {
		return filepath.SkipDir
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
		return filepath.SkipDir
	}
	return nil
}

func (r *pkg) add(file string) error {
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, file, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	isTest := strings.HasSuffix(file, "_test.go")
	for _, spec := range f.Imports {
		to, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		to = strings.TrimPrefix(to, module)
		if isTest {
			r.testImports = append(r.testImports, to)
		} else {
			r.imports = append(r.imports, to)
		}
	}
	if f.Doc != nil {
		r.comment = f.Doc.Text()
	}
	if isTest {
		r.name = strings.TrimSuffix(f.Name.Name, "_test")
		return nil
	}
	r.name = f.Name.Name
	r.lines += set.File(f.FileStart).LineCount()
	for _, d := range f.Decls {
		if d, ok := d.(*ast.FuncDecl); ok {
			r.functions = append(r.functions, function{
				name:  funcName(d),
				lines: set.Position(d.End()).Line - set.Position(d.Pos()).Line + 1,
				table: buildsCommand(d),
			})
		}
	}
	return nil
}

func funcName(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return d.Name.Name
	}
	of := d.Recv.List[0].Type
	if p, ok := of.(*ast.StarExpr); ok {
		of = p.X
	}
	if g, ok := of.(*ast.IndexExpr); ok {
		of = g.X
	}
	if id, ok := of.(*ast.Ident); ok {
		return id.Name + "." + d.Name.Name
	}
	return d.Name.Name
}

// buildsCommand reports whether d returns a *cobra.Command.
func buildsCommand(d *ast.FuncDecl) bool {
	if d.Type.Results == nil {
		return false
	}
	for _, field := range d.Type.Results.List {
		if p, ok := field.Type.(*ast.StarExpr); ok {
			if s, ok := p.X.(*ast.SelectorExpr); ok && s.Sel.Name == "Command" {
				return true
			}
		}
	}
	return false
}

// eachPackage calls check for every package, in the order of their paths.
func eachPackage(t *testing.T, check func(dir string, r *pkg)) {
	t.Helper()
	all, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("found %d packages below %s", len(all), root)
	}
	for _, dir := range slices.Sorted(maps.Keys(all)) {
		check(dir, all[dir])
	}
}

// matches reports whether dir matches one of the patterns. A pattern is a path; or a
// path followed by "/...", which also matches all paths below; or "...", which matches
// every package.
func matches(dir string, patterns ...string) bool {
	for _, p := range patterns {
		base, below := strings.CutSuffix(p, "/...")
		if p == "..." || dir == base || below && strings.HasPrefix(dir, base+"/") {
			return true
		}
	}
	return false
}
