package hostile

import (
	"bytes"
	"io"
	"strings"

	"github.com/snap-backup/snap/device/protocol/devicelink"
)

// badPaths returns paths that a host must reject: on at least one operating system,
// each is invalid or leads out of the backup folder. The keys say what is wrong.
func badPaths(udid string) map[string]string {
	return map[string]string{
		"above":     "../hostile",
		"dotdot":    udid + "/../../hostile",
		"inner":     udid + "/Snapshot/../../hostile",
		"absolute":  "/tmp/hostile",
		"drive":     "C:/hostile",
		"backslash": udid + `\..\..\hostile`,
		"nul":       udid + "/a\x00b",
		"empty":     udid + "//hostile",
		"dot":       udid + "/./hostile",
		"other":     "00008110-FFFFFFFFFFFFFFFF/hostile",
		"long":      udid + "/" + strings.Repeat("a", devicelink.MaxName),
	}
}

// pathAttacks returns functions that send one request with a path, by operation. A
// function reports whether the host did what the request asks.
func pathAttacks() map[string]func(t *Target, path string) (accepted bool, err error) {
	simple := func(name string, args func(t *Target, path string) []any) func(*Target, string) (bool, error) {
		return func(t *Target, path string) (bool, error) {
			s, err := t.Ask(name, args(t, path)...)
			return s.Code == devicelink.StatusOK, err
		}
	}
	inside := func(t *Target) string { return t.UDID + "/" + "hostile" }
	return map[string]func(*Target, string) (bool, error){
		"mkdir": simple("DLMessageCreateDirectory", func(_ *Target, path string) []any { return []any{path, map[string]any{}} }),
		"list":  simple("DLContentsOfDirectory", func(_ *Target, path string) []any { return []any{path, map[string]any{}} }),
		"remove": simple("DLMessageRemoveItems", func(_ *Target, path string) []any {
			return []any{[]string{path}, map[string]any{}, 0.0}
		}),
		"move-from": simple("DLMessageMoveItems", func(t *Target, path string) []any {
			return []any{map[string]string{path: inside(t)}, map[string]any{}, 0.0}
		}),
		"move-to": simple("DLMessageMoveItems", func(t *Target, path string) []any {
			return []any{map[string]string{t.UDID + "/Status.plist": path}, map[string]any{}, 0.0}
		}),
		"copy-from": simple("DLMessageCopyItem", func(t *Target, path string) []any { return []any{path, inside(t), map[string]any{}} }),
		"copy-to": simple("DLMessageCopyItem", func(t *Target, path string) []any {
			return []any{t.UDID + "/Status.plist", path, map[string]any{}}
		}),
		"download": func(t *Target, path string) (bool, error) {
			got := false
			missing, err := t.DownloadAll([]string{path}, 0, func(string) (io.Writer, error) { got = true; return io.Discard, nil }, nil)
			return got && len(missing) == 0, err
		},
		"upload": attackUpload,
	}
}

// attackUpload uploads a file to a bad path.
func attackUpload(t *Target, path string) (bool, error) {
	const name = "DLMessageUploadFiles"
	var b bytes.Buffer
	writeName(&b, "/hostile")
	writeName(&b, path)
	writeFrame(&b, devicelink.KindData, bytes.Repeat([]byte("hostile "), 10_000)[:devicelink.MaxFrame])
	writeFrame(&b, devicelink.KindEnd, nil)
	b.Write(make([]byte, 4))
	if err := t.Link.WriteMessage(name, map[string]any{}, -1.0, int64(devicelink.MaxFrame)); err != nil {
		return false, err
	}
	if _, err := t.Conn.Write(b.Bytes()); err != nil {
		return false, err
	}
	s, err := t.Answer(name)
	return s.Code == devicelink.StatusOK, err
}
