// Package hostfiles gives a device access to a host's files: it sends DeviceLink
// requests to list, download, upload, move and remove them.
//
// It reports every answer that does not have the right form. It downloads to writers
// and uploads from readers, and keeps no whole file in memory.
package hostfiles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/snap-backup/snap/device/protocol/devicelink"
	"github.com/snap-backup/snap/device/simulator/mberror"
)

var (
	// ErrOver means that the conversation has ended.
	ErrOver = errors.New("the conversation is over")
	// ErrCut means that the device cut the connection on purpose.
	ErrCut = fmt.Errorf("%w: the connection was cut on purpose", ErrOver)
	// ErrLeft means that the host disconnected during an operation.
	ErrLeft = fmt.Errorf("%w: the host disconnected", ErrOver)
)

// Client sends a device's requests to one host.
type Client struct {
	ctx     context.Context
	link    *devicelink.Conn
	violate func(format string, args ...any)
}

// New returns a client that uses a link. It calls violate for each mistake of the
// host.
func New(ctx context.Context, link *devicelink.Conn, violate func(format string, args ...any)) *Client {
	return &Client{ctx, link, violate}
}

// Ask sends a request and returns the answer.
func (c *Client) Ask(name string, args ...any) (devicelink.Status, error) {
	if err := c.link.WriteMessage(append([]any{name}, args...)...); err != nil {
		return devicelink.Status{}, err
	}
	return c.Answer(name)
}

// Answer reads the answer to a request. If the host disconnects instead, the
// error is ErrLeft.
func (c *Client) Answer(name string) (devicelink.Status, error) {
	m, err := c.link.ReadMessage()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return devicelink.Status{}, fmt.Errorf("waiting for the answer to %s: %w", name, err)
	}
	if m.Name() == devicelink.DisconnectName {
		return devicelink.Status{}, ErrLeft
	}
	code, ok := m.Int(1)
	text, isText := m.Text(2)
	if m.Name() != devicelink.StatusResponse || !ok || !isText || len(m) != 4 {
		return devicelink.Status{}, fmt.Errorf("%w: the answer to %s is %q with %d elements", devicelink.ErrFormat, name, m.Name(), len(m))
	}
	if text == devicelink.NoText {
		text = ""
	}
	return devicelink.Status{Code: code, Text: text, Payload: m[3]}, nil
}

// Require sends a request. It returns an error unless the request succeeds or fails
// with one of codes.
func (c *Client) Require(codes []int64, name string, args ...any) error {
	s, err := c.Ask(name, args...)
	if err != nil {
		return err
	}
	return accept(s, codes, name)
}

func accept(s devicelink.Status, codes []int64, name string) error {
	if s.Code == devicelink.StatusOK || slices.Contains(codes, s.Code) {
		return nil
	}
	code := s.Code
	text := s.Text
	if code == devicelink.StatusMulti {
		for path, one := range fileCodes(s.Payload) {
			if code = one; text == "" || text == "Multi status" {
				text = path
			}
		}
	}
	return mberror.Errorf(deviceCode(code), "%s: the host answers %d %s", name, s.Code, text)
}

// fileCodes returns the error codes in the payload of a multi status, by path.
func fileCodes(payload any) map[string]int64 {
	codes := map[string]int64{}
	files, _ := payload.(map[string]any)
	for _, path := range slices.Sorted(maps.Keys(files)) {
		one, _ := files[path].(map[string]any)
		if code, ok := devicelink.Int(one["DLFileErrorCode"]); ok {
			codes[path] = code
		}
	}
	return codes
}

// deviceCode translates the error code of a host's answer into the error code of the
// device's response.
func deviceCode(status int64) int64 {
	switch status {
	case devicelink.StatusNoFile:
		return mberror.NoFile
	case devicelink.StatusExists:
		return mberror.Exists
	case devicelink.StatusNotDir:
		return mberror.NotDir
	case -9:
		return mberror.IsDir
	case -10:
		return mberror.Loop
	case devicelink.StatusNoSpace:
		return mberror.HostFull
	}
	return mberror.Link
}

// Mkdir creates a folder. It is no error if the folder exists.
func (c *Client) Mkdir(path string) error {
	return c.Require([]int64{devicelink.StatusExists}, "DLMessageCreateDirectory", path, map[string]any{})
}

// FreeSpace returns the host's free space in bytes. known is false if the host does
// not tell it.
func (c *Client) FreeSpace() (free int64, known bool, err error) {
	s, err := c.Ask("DLMessageGetFreeDiskSpace")
	if err != nil || s.Code != devicelink.StatusOK {
		return 0, false, err
	}
	free, ok := devicelink.Int(s.Payload)
	if !ok {
		c.violate("the answer to DLMessageGetFreeDiskSpace is a %T", s.Payload)
	}
	return free, ok, nil
}
