package s3_test

import (
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo/backend/s3"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		address, host, bucket, prefix string
		http                          bool
	}{
		{"s3:https://example.com/bucket", "example.com", "bucket", "", false},
		{"s3:https://Example.com:9000/bucket/", "example.com:9000", "bucket", "", false},
		{"s3:HTTP://localhost:9000/bucket/a/b c/ä//", "localhost:9000", "bucket", "a/b c/ä", true},
		{"s3:http://[::1]:9000/bucket/a", "[::1]:9000", "bucket", "a", true},
		{"s3:s3.eu-central-1.amazonaws.com/my.bucket/phones", "s3.eu-central-1.amazonaws.com", "my.bucket", "phones", false},
		{"s3:s3.amazonaws.com/Bucket_1", "s3.amazonaws.com", "Bucket_1", "", false},
		{"s3:nas:9000/bucket", "nas:9000", "bucket", "", false},
	} {
		cfg, err := s3.Parse(tt.address)
		if err != nil || cfg.Host != tt.host || cfg.Bucket != tt.bucket || cfg.Prefix != tt.prefix || cfg.HTTP != tt.http || cfg.String() != tt.address {
			t.Errorf("Parse(%q) = %+v, %v", tt.address, cfg, err)
		}
	}
	for address, why := range map[string]string{
		"":                                "begins with s3:",
		"/path":                           "begins with s3:",
		"s3:":                             "no host",
		"s3:host":                         "no bucket",
		"s3:https://host/":                "no bucket",
		"s3:https:///bucket":              "no host",
		"s3://bucket/prefix":              "host or the bucket",
		"s3:/bucket":                      "host or the bucket",
		"s3:ftp://host/bucket":            "neither https nor http",
		"s3:host:0/bucket":                "port",
		"s3:host:99999/bucket":            "port",
		"s3:host:x/bucket":                "port",
		"s3:[::1/bucket":                  "IPv6",
		"s3:[1.2.3.4]/bucket":             "IPv6",
		"s3:ho st/bucket":                 "name of a computer",
		"s3:-host/bucket":                 "name of a computer",
		"s3:host/ab":                      "3 to 63",
		"s3:host/bücket":                  "only letters",
		"s3:host/.bucket":                 "begins and ends",
		"s3:host/buc..ket":                "two dots",
		"s3:host/bucket//a":               "two slashes",
		"s3:host/bucket/../a":             "..",
		"s3:host/bucket/a%20b":            "%",
		"s3:host/bucket/a\x00":            "control",
		"s3:host/bucket/\xff":             "UTF-8",
		"s3:host/bucket/ a":               "space",
		"s3:host/bucket/" + long:          "longer than",
		"s3:https://KEY:hunter2@host/b":   "AWS_ACCESS_KEY_ID",
		"s3:KEY:hunter2@host/bucket":      "AWS_ACCESS_KEY_ID",
		"s3:host/bucket?secret=hunter2":   "AWS_ACCESS_KEY_ID",
		"s3:https://host/bucket#hunter2":  "AWS_ACCESS_KEY_ID",
		"s3:https://hunter2@/bucket\x00%": "AWS_ACCESS_KEY_ID",
	} {
		_, err := s3.Parse(address)
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("Parse(%.50q) = %v, want %q", address, err, why)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v shows a secret", err)
		}
	}
}

var long = strings.Repeat("a", 801)

func FuzzParse(f *testing.F) {
	for _, address := range []string{
		"s3:https://example.com/bucket/a", "s3:http://[::1]:9000/bucket", "s3:s3.eu-central-1.amazonaws.com/b.u-c_ket/ä/ö",
		"s3:KEY:secret@host/bucket", "s3://bucket", "s3:host:80/bucket//", "s3:",
	} {
		f.Add(address)
	}
	f.Fuzz(func(t *testing.T, address string) {
		cfg, err := s3.Parse(address)
		if err != nil {
			if _, secret, ok := strings.Cut(address, "@"); ok && len(secret) > 20 && strings.Contains(err.Error(), secret) {
				t.Errorf("%v repeats what may be a secret", err)
			}
			return
		}
		if cfg.String() != address || strings.ContainsAny(address, "@?#%\x00") {
			t.Errorf("Parse(%q) = %+v", address, cfg)
		}
		scheme := "https"
		if cfg.HTTP {
			scheme = "http"
		}
		canonical := "s3:" + scheme + "://" + cfg.Host + "/" + cfg.Bucket
		if cfg.Prefix != "" {
			canonical += "/" + cfg.Prefix
		}
		again, err := s3.Parse(canonical)
		if err != nil || again.Host != cfg.Host || again.Bucket != cfg.Bucket || again.Prefix != cfg.Prefix || again.HTTP != cfg.HTTP {
			t.Errorf("Parse(%q) = %+v, but Parse(%q) = %+v, %v", address, cfg, canonical, again, err)
		}
	})
}
