package page

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo"
)

func data(findings int) *Data {
	s := &repo.Snapshot{Time: time.Date(2026, 5, 1, 2, 3, 4, 0, time.UTC), Encrypted: true, Files: 1234, Bytes: 5678,
		Device: repo.Device{UDID: "00008110-338EDF6E0CFEE5BC", Name: "Anna’s iPhone", ProductVersion: "17.6.1"}}
	s.ID[0] = 0xab
	c := &repo.Certificate{Snapshot: s.ID, Time: s.Time.AddDate(0, 0, 3), Host: "nas", Program: "snap 1.2", Kind: repo.CertificateDrill,
		Level: repo.LevelDevice, Result: repo.ResultPassed, Files: 1234, Bytes: 5678, ReadFiles: 1200, ReadBytes: 5000, DigestFiles: 7, DigestBytes: 70, Databases: 9}
	for i := range findings {
		c.Result = repo.ResultFailed
		c.Findings = append(c.Findings, repo.Finding{Kind: "digest", Consequence: repo.Damage, Count: 1, Text: fmt.Sprintf("finding %d %s", i, strings.Repeat("long ", 100))})
		c.NotChecked = append(c.NotChecked, fmt.Sprintf("note %d %s", i, strings.Repeat("long ", 100)))
	}
	return &Data{Certificate: c, Snapshot: s, Model: "iPhone 13", Repository: "/mnt/My Backups/it's", ID: "0123456789abcdef",
		Bytes: func(n int64) string { return fmt.Sprint(n, " B") },
		Time:  func(t time.Time) string { return t.Format(time.DateOnly) }}
}

func write(t testing.TB, d *Data) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, d); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPage(t *testing.T) {
	page := write(t, data(0))
	for _, want := range []string{
		"Restore drill of Anna’s iPhone", "This backup passed", "ab00000", "2026-05-01", "2026-05-04, on nas, with snap 1.2", "Anna’s iPhone, iPhone 13, iOS 17.6.1",
		"1,234 files, 5678 B", "1,200 files", "9 passed an integrity check", "it&#39;s (01234567…)", "Nothing.", "recovery key", "backup password",
		`snap -r &#39;/mnt/My Backups/it&#39;\&#39;&#39;s&#39; restore ab000000`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not on the page", want)
		}
	}
	d := data(30)
	if page = write(t, d); !strings.Contains(page, "did not pass") || !strings.Contains(page, "and 25 more") || !strings.Contains(page, "and 26 more") || !strings.Contains(page, "how to restore the rest") {
		t.Error(page)
	}
	d.Certificate.Level = repo.LevelFolder
	if page = write(t, d); !strings.Contains(page, "read back and compared") {
		t.Error(page)
	}
}

// The longest page prints on one sheet of A4 and of Letter.
func TestPrint(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil || testing.Short() {
		t.Skip("chromium prints pages")
	}
	sheet := regexp.MustCompile(`/Type\s*/Page\b[^s]`)
	long := data(30)
	long.Snapshot.Device.Name = strings.Repeat("long name ", 50)
	long.Repository = "/" + strings.Repeat("folder/", 50)
	for i := range long.Certificate.Findings {
		long.Certificate.Findings[i].Text = strings.Repeat("W", 1000)
		long.Certificate.NotChecked[i] = strings.Repeat("W", 1000)
	}
	for _, size := range []string{"A4", "letter"} {
		for name, d := range map[string]*Data{"short": data(0), "long": long} {
			dir := t.TempDir()
			html, pdf := filepath.Join(dir, "page.html"), filepath.Join(dir, "page.pdf")
			page := strings.Replace(write(t, d), "size: auto", "size: "+size, 1)
			if err := os.WriteFile(html, []byte(page), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer",
				"--user-data-dir="+dir, "--print-to-pdf="+pdf, "file://"+html).CombinedOutput()
			if err != nil {
				t.Skipf("chromium does not run here: %v\n%s", err, out)
			}
			b, err := os.ReadFile(pdf)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(sheet.FindAll(b, -1)); n != 1 {
				t.Errorf("the %s page prints on %d sheets of %s", name, n, size)
			}
		}
	}
}

// The page is well formed, has no script, loads nothing and fits on a sheet, whatever
// names it shows.
func TestHostile(t *testing.T) {
	attack := "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;\u202egnp.\x00\x1b[31m</style></td>{{.Title}}" + strings.Repeat("W", 5000)
	d := data(30)
	s, c := d.Snapshot, d.Certificate
	for _, p := range []*string{&s.Device.Name, &s.Device.UDID, &s.Device.ProductVersion, &c.Host, &c.Program, &d.Repository, &d.Model, &d.ID, &c.Findings[0].Text, &c.NotChecked[0]} {
		*p = attack
	}
	page := write(t, d)
	if n := len(page); n > 20_000 {
		t.Errorf("the page has %d bytes", n)
	}
	elements := map[string]int{}
	dec := xml.NewDecoder(strings.NewReader(strings.Replace(page, "<!DOCTYPE html>", "", 1)))
	dec.Strict, dec.AutoClose, dec.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok {
			elements[e.Name.Local]++
			for _, a := range e.Attr {
				switch name := strings.ToLower(a.Name.Local); {
				case strings.HasPrefix(name, "on"), name == "src", name == "href", name == "style":
					t.Errorf("%s has the attribute %s", e.Name.Local, name)
				}
			}
		}
	}
	for name := range elements {
		switch name {
		case "html", "head", "meta", "title", "style", "body", "main", "footer", "h1", "h2", "p", "table", "tr", "th", "td", "ul", "ol", "li", "span", "b", "code":
		default:
			t.Errorf("the page has %d elements %s", elements[name], name)
		}
	}
	if elements["title"] != 1 || elements["style"] != 1 || elements["li"] != maxFindings+maxNotes+2+4 {
		t.Errorf("%v", elements)
	}
	if strings.ContainsAny(page, "\u202e\x00\x1b") || strings.Contains(page, "url(") || strings.Contains(page, "@import") || strings.Contains(page, "http://") || strings.Contains(page, "https://") {
		t.Error("the page has control characters or loads something")
	}
}
