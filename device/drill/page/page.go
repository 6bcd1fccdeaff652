// Package page writes the certificate of a drill as a page to print and keep in a safe
// place: HTML that fits on one sheet of A4 or Letter.
//
// The page has no script, loads nothing, and contains no secret. All text is escaped,
// and long lists are cut so that they fit on the sheet.
package page

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/repo"
)

// Data is what a page says.
type Data struct {
	Certificate *repo.Certificate
	Snapshot    *repo.Snapshot
	Model       string // the device's name in shops
	Repository  string // its folder
	ID          string // of the repository
	Bytes       func(int64) string
	Time        func(time.Time) string
}

// Limits of what fits on the sheet.
const (
	maxFindings = 5
	maxNotes    = 4
	maxText     = 150 // characters
	maxName     = 60
)

//go:embed page.html
var source string

var layout = template.Must(template.New("page").Parse(source))

// row is a line of a table.
type row struct{ Label, Value string }

type finding struct {
	Text string
	Bad  bool
}

type view struct {
	Title, Verdict, Subject string
	Passed                  bool
	About, Checked          []row
	Findings                []finding
	MoreFindings            int
	NotChecked              []string
	MoreNotChecked          int
	Steps                   []template.HTML
}

// Write writes a page.
func Write(w io.Writer, d *Data) error {
	v := d.view()
	if err := layout.Execute(w, v); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

func (d *Data) view() *view {
	c, s := d.Certificate, d.Snapshot
	v := &view{
		Title: "Restore drill of " + clip(s.Device.Name, maxName), Passed: c.Result == repo.ResultPassed, Subject: clip(s.Device.Name, maxName),
		Verdict: "This backup did not pass its restore drill.",
	}
	if v.Passed {
		v.Verdict = "This backup passed a rehearsal of its restore."
	}
	v.About = []row{
		{"Device", join(", ", clip(s.Device.Name, maxName), clip(d.Model, maxName), prefixed("iOS ", clip(s.Device.ProductVersion, maxName)))},
		{"UDID", clip(s.Device.UDID, maxName)},
		{"Backup of", d.Time(s.Time)},
		{"Snapshot", c.Snapshot.String()},
		{"Content", fmt.Sprintf("%s, %s", words.Plural(c.Files, "file"), d.Bytes(c.Bytes))},
		{"Drilled", join(", ", d.Time(c.Time), prefixed("on ", clip(c.Host, maxName)), prefixed("with ", clip(c.Program, maxName)))},
		{"Repository", clip(d.Repository, 2*maxName) + " (" + clip(d.ID, 9) + ")"},
	}
	v.Checked = d.checked()
	for _, f := range c.Findings[:min(len(c.Findings), maxFindings)] {
		v.Findings = append(v.Findings, finding{clip(f.Text, maxText), f.Consequence != repo.Remark})
	}
	v.MoreFindings = len(c.Findings) - len(v.Findings)
	for _, text := range c.NotChecked[:min(len(c.NotChecked), maxNotes)] {
		v.NotChecked = append(v.NotChecked, clip(text, maxText))
	}
	v.MoreNotChecked = len(c.NotChecked) - len(v.NotChecked)
	v.Steps = d.steps()
	return v
}

// checked says what the drill did.
func (d *Data) checked() []row {
	c := d.Certificate
	how := "The backup folder was written, read back and compared."
	if c.Level == repo.LevelDevice {
		how = "A simulated device asked for a full restore, as a real one does."
	}
	digest := "none has a digest in the manifest"
	if c.DigestFiles > 0 {
		digest = fmt.Sprintf("compared with the manifest: %s, %s; those that differ are named below", words.Plural(c.DigestFiles, "file"), d.Bytes(c.DigestBytes))
	}
	return []row{
		{"How", how},
		{"Read", fmt.Sprintf("%s, %s", words.Plural(c.ReadFiles, "file"), d.Bytes(c.ReadBytes))},
		{"Digests", digest},
		{"Databases", fmt.Sprintf("%s passed an integrity check", words.Number(c.Databases))},
	}
}

// steps say how to restore.
func (d *Data) steps() []template.HTML {
	c, s := d.Certificate, d.Snapshot
	line := func(format string, args ...any) template.HTML {
		for i, a := range args {
			args[i] = template.HTMLEscapeString(fmt.Sprint(a))
		}
		return template.HTML(fmt.Sprintf(format, args...)) // all arguments are escaped
	}
	id, warning := c.Snapshot.Short(), ""
	if c.Result != repo.ResultPassed {
		warning = ", which says what is damaged and how to restore the rest"
	}
	where := quote(clip(d.Repository, 2*maxName))
	if len([]rune(d.Repository)) > maxName {
		where = "REPOSITORY"
	}
	secret := "You need its password, or the recovery key that was written down when the repository was made."
	if s.Encrypted {
		secret += " The device will ask for the backup password, which the repository may keep."
	}
	return []template.HTML{
		line("Get the repository <b>%s</b>, or a mirror or copy of it, and the program snap.", clip(d.Repository, 2*maxName)),
		line("%s", secret),
		line("Connect the device, and run <code>snap -r %s restore %s</code>%s", where, id, warning),
		line("Without a device: <code>snap -r %s materialize %s FOLDER</code> writes a folder that Finder restores.", where, id),
	}
}

// quote returns a path as a shell needs it.
func quote(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// clip cuts a text that has more than n characters, and replaces control characters and
// characters that change the direction of text.
func clip(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// join joins the texts that are not empty.
func join(sep string, texts ...string) string {
	var out []string
	for _, t := range texts {
		if t != "" {
			out = append(out, t)
		}
	}
	return strings.Join(out, sep)
}
