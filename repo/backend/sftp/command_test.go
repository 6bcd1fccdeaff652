package sftp

import (
	"strings"
	"testing"
)

func TestArgv(t *testing.T) {
	c := Config{User: "anna", Host: "nas", Port: 2222, Path: "/backup"}
	tests := []struct {
		opts       Options
		prompt     bool
		begin, end string
	}{
		{Options{}, true, "ssh -oForwardX11=no", "-oConnectTimeout=120 -p 2222 -l anna -s -- nas sftp"},
		{Options{}, false, "ssh -oForwardX11=no", "-oBatchMode=yes -p 2222 -l anna -s -- nas sftp"},
		{Options{Args: "-i 'my key'"}, false, "ssh -i my key -oForwardX11=no", "-s -- nas sftp"},
		{Options{Command: "/usr/lib/openssh/sftp-server -e", Args: "-v"}, true, "/usr/lib/openssh/sftp-server -e", "sftp-server -e"},
	}
	for _, tt := range tests {
		args, err := argv(c, tt.opts, tt.prompt)
		got := strings.Join(args, " ")
		if err != nil || !strings.HasPrefix(got, tt.begin) || !strings.HasSuffix(got, tt.end) {
			t.Errorf("%+v: %q, %v", tt.opts, got, err)
		}
	}
	for _, opts := range []Options{{Command: " "}, {Command: "'"}, {Args: `"`}} {
		if args, err := argv(c, opts, false); err == nil {
			t.Errorf("%+v: %q", opts, args)
		}
	}
}
