package sftp

import (
	"cmp"
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		address string
		want    Config
		prints  string // "" if it prints the address
	}{
		{"sftp:nas:/backup/phones", Config{Host: "nas", Path: "/backup/phones"}, ""},
		{"sftp:nas:phones", Config{Host: "nas", Path: "phones"}, ""},
		{"sftp:anna@nas.local:/backup", Config{User: "anna", Host: "nas.local", Path: "/backup"}, ""},
		{"sftp:anna@nas:2222:/backup", Config{User: "anna", Host: "nas", Port: 2222, Path: "/backup"}, "sftp://anna@nas:2222//backup"},
		{"sftp:anna@corp@nas:/backup", Config{User: "anna@corp", Host: "nas", Path: "/backup"}, ""},
		{`sftp:CORP\anna@nas:/backup`, Config{User: `CORP\anna`, Host: "nas", Path: "/backup"}, ""},
		{"sftp:[::1]:/backup", Config{Host: "::1", Path: "/backup"}, ""},
		{"sftp:anna@[fe80::1%eth0]:22:/backup", Config{User: "anna", Host: "fe80::1%eth0", Port: 22, Path: "/backup"}, "sftp://anna@[fe80::1%25eth0]:22//backup"},
		{"sftp:nas:/", Config{Host: "nas", Path: "/"}, ""},
		{"sftp:nas:.", Config{Host: "nas", Path: "."}, ""},
		{"sftp:nas:/a//b/./c/", Config{Host: "nas", Path: "/a/b/c"}, "sftp:nas:/a/b/c"},
		{"sftp:nas:/Volumes/My Disk/ä: 50%", Config{Host: "nas", Path: "/Volumes/My Disk/ä: 50%"}, ""},
		{"sftp:nas:/mail/a@b:c", Config{Host: "nas", Path: "/mail/a@b:c"}, ""},
		{"sftp:nas:22", Config{Host: "nas", Path: "22"}, ""},
		{"sftp:nas:22:phones", Config{Host: "nas", Path: "22:phones"}, ""},
		{"sftp://nas/phones", Config{Host: "nas", Path: "phones"}, "sftp:nas:phones"},
		{"sftp://nas//backup/phones", Config{Host: "nas", Path: "/backup/phones"}, "sftp:nas:/backup/phones"},
		{"sftp://anna@nas:2222//backup/my%20phones", Config{User: "anna", Host: "nas", Port: 2222, Path: "/backup/my phones"}, ""},
		{"sftp://anna@[::1]:2222//backup", Config{User: "anna", Host: "::1", Port: 2222, Path: "/backup"}, ""},
		{"sftp://nas/22:%2Fphones", Config{Host: "nas", Path: "22:/phones"}, "sftp://nas/22:/phones"},
		{"sftp://nas/a@b:c", Config{Host: "nas", Path: "a@b:c"}, "sftp://nas/a@b:c"},
	}
	for _, tt := range tests {
		got, err := Parse(tt.address)
		if err != nil || got != tt.want {
			t.Errorf("Parse(%q) = %+v, %v, want %+v", tt.address, got, err, tt.want)
			continue
		}
		if want := cmp.Or(tt.prints, tt.address); got.String() != want {
			t.Errorf("%q prints as %q, want %q", tt.address, got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct{ address, text string }{
		{"", "begin"},
		{"nas:/backup", "begin"},
		{"sftp:", "colon"},
		{"sftp:nas", "colon"},
		{"sftp:nas:", "no folder"},
		{"sftp::/backup", "host"},
		{"sftp:@nas:/backup", "user before @ is empty"},
		{"sftp://@nas/backup", "user before @ is empty"},
		{"sftp:anna@:/backup", "host"},
		{"sftp://nas", "no folder"},
		{"sftp://nas/", "no folder"},
		{"sftp://nas:/backup", "port is empty"},
		{"sftp://nas:0/backup", "1 to 65535"},
		{"sftp:nas:70000:/backup", "1 to 65535"},
		{"sftp://nas:ssh/backup", "not a URL"},
		{"sftp:-oProxyCommand=touch x:/backup", "host"},
		{"sftp:anna@-oProxyCommand=x:/backup", "host"},
		{"sftp://-oProxyCommand=x/backup", "host"},
		{"sftp:-l@nas:/backup", "user"},
		{"sftp:$(id)@nas:/backup", "user"},
		{"sftp:nas;id:/backup", "host"},
		{"sftp:[nas]x:/backup", "host"},
		{"sftp:[::1:/backup", "colon"},
		{"sftp:nas:~/phones", "~"},
		{"sftp:nas:~", "~"},
		{"sftp:nas:/a\nb", "control"},
		{"sftp://nas/a%00b", "control"},
		{"sftp://nas//backup?x", "%3F"},
		{"sftp://nas//backup#x", "%23"},
	}
	for _, tt := range tests {
		got, err := Parse(tt.address)
		if !errors.Is(err, ErrAddress) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("Parse(%q) = %+v, %v, want an error with %q", tt.address, got, err, tt.text)
		}
	}
	for _, address := range []string{
		"sftp:anna:s3cret@nas:/backup", "sftp:anna:s3cret@nas:backup", "sftp://anna:s3cret@nas/backup",
		"sftp://anna:s3cret@nas:x/backup", "sftp://anna:s3c%ret@nas/backup", "sftp:anna:s3cret@[::1]:/backup", "sftp:anna:@nas:/x",
		"sftp:anna:s3:c@ret@nas:/backup", "sftp:anna:s3c/ret@nas:/backup",
	} {
		_, err := Parse(address)
		if !errors.Is(err, ErrAddress) || strings.Contains(err.Error(), "s3c") {
			t.Errorf("Parse(%q) = %v", address, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"sftp:nas:/a", "sftp:u@nas:22:/a b", "sftp://u@[::1]:2222//a%20b", "sftp:[fe80::1%eth0]:a", "sftp://nas/22:/x",
		"sftp:u:p@nas:/a", `sftp:C\u@nas:a`, "sftp:-x:/a", "sftp:nas:a@b:c",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, address string) {
		c, err := Parse(address)
		if err != nil {
			return
		}
		again, err := Parse(c.String())
		if err != nil || again != c {
			t.Fatalf("%q is %+v, prints as %q, which is %+v, %v", address, c, c, again, err)
		}
		if strings.HasPrefix(c.Host, "-") || strings.HasPrefix(c.User, "-") || c.Host == "" || c.Path == "" {
			t.Fatalf("%q is %+v", address, c)
		}
	})
}
