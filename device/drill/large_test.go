package drill

import (
	"io"
	"strings"
	"testing"

	rules "github.com/snap-backup/snap/device/judge"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
)

// blanks reads as white space without end.
type blanks struct{}

func (blanks) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

// Only property lists count as property lists that are too large to check.
func TestLargePropertyLists(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, head string
		size       int64
		large      int64
	}{
		{"Library/a.plist", `<?xml version="1.0"?><plist version="1.0">`, rules.MaxPropertyList + 1, 1},
		{"Library/a.plist", `<?xml version="1.0"?><plist version="1.0">`, rules.MaxPropertyList, 0},
		{"Documents/a.html", "<html>", rules.MaxPropertyList + 1, 0},
	} {
		var j judge
		content := io.LimitReader(io.MultiReader(strings.NewReader(c.head), blanks{}), c.size)
		found, err := j.plain(&manifest.Record{RelativePath: c.name}, content)
		if err != nil || j.large != c.large || found.size != c.size {
			t.Errorf("%s: %d are too large, want %d; %+v, %v", c.name, j.large, c.large, found, err)
		}
	}
}
