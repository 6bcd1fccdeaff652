// Package afc is a client of Apple File Conduit, the service for a device's media
// files and for the sync lock. That lock keeps two programs from backing up or
// synchronising a device at the same time.
//
// A client sends one request at a time. A request ends with its context, and the
// length of a reply is bounded. After an error other than a Status, the client can
// only be closed. docs/decisions/0020-own-afc.md says why snap does not use the client
// of go-ios.
package afc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/snap-backup/snap/device/protocol/stream"
)

// Service is the name of the service.
const Service = "com.apple.afc"

const (
	magic     = "CFA6LPAA"
	headerLen = 40
	// maxReply limits the body of a reply. The largest is the list of a large
	// folder.
	maxReply = 16 << 20
	// transfer is the size of one read or write, in bytes.
	transfer = 256 << 10
)

// Operations in the header of a packet.
const (
	opStatus     = 0x01
	opData       = 0x02
	opList       = 0x03
	opRemove     = 0x08
	opMkdir      = 0x09
	opStat       = 0x0a
	opOpen       = 0x0d
	opOpenResult = 0x0e
	opRead       = 0x0f
	opWrite      = 0x10
	opClose      = 0x14
	opLock       = 0x1b
)

// Mode says how a file is opened.
type Mode uint64

// Modes of Open.
const (
	Read      Mode = 1
	ReadWrite Mode = 2 // creates the file if it is missing
	Truncate  Mode = 3 // for writing; creates or empties the file
)

const (
	lockExclusive = 6 // fails with WouldBlock instead of waiting
	lockRelease   = 12
)

// Status is the code of a failed request. For errors.Is, NotFound is
// fs.ErrNotExist and Exists is fs.ErrExist.
type Status uint64

// Some of the statuses.
const (
	NotFound   Status = 8
	Denied     Status = 10
	Exists     Status = 16
	WouldBlock Status = 19
)

func (s Status) Error() string {
	switch s {
	case NotFound:
		return "no such file on the device"
	case Denied:
		return "the device denied access"
	case Exists:
		return "the file already exists on the device"
	case WouldBlock:
		return "another program holds the lock"
	}
	return fmt.Sprintf("the device answered with status %d", uint64(s))
}

// Is makes errors.Is work with the errors of io/fs.
func (s Status) Is(target error) bool {
	return s == NotFound && target == fs.ErrNotExist || s == Exists && target == fs.ErrExist
}

// ErrProtocol says that a reply is malformed.
var ErrProtocol = errors.New("malformed reply of the file service")

// Client is a connection to the service.
type Client struct {
	mu     sync.Mutex
	conn   net.Conn
	packet uint64
}

// New returns a client on a connection to Service, which it owns from now on.
func New(c net.Conn) *Client { return &Client{conn: c} }

// Close closes the connection. The device then closes its open files and releases
// their locks.
func (c *Client) Close() error { return c.conn.Close() }

// request sends an operation with its fixed part and payload. It returns the kind
// and body of the reply. A status other than 0 is returned as an error.
func (c *Client) request(ctx context.Context, op uint64, fixed, payload []byte) (kind uint64, body []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.packet++
	head := make([]byte, 0, headerLen+len(fixed)+len(payload))
	head = append(head, magic...)
	for _, n := range []uint64{uint64(headerLen + len(fixed) + len(payload)), uint64(headerLen + len(fixed)), c.packet, op} {
		head = binary.LittleEndian.AppendUint64(head, n)
	}
	head = append(append(head, fixed...), payload...)
	err = stream.Do(ctx, c.conn, stream.Timeout, func() error {
		if _, err := c.conn.Write(head); err != nil {
			return err
		}
		kind, body, err = readReply(c.conn, c.packet)
		return err
	})
	if err == nil && kind == opStatus {
		if len(body) < 8 {
			return 0, nil, fmt.Errorf("%w: a status of %d bytes", ErrProtocol, len(body))
		}
		if s := Status(binary.LittleEndian.Uint64(body)); s != 0 {
			return 0, nil, s
		}
	}
	return kind, body, err
}

// readReply reads the reply to a packet and returns what follows its header.
func readReply(r io.Reader, packet uint64) (kind uint64, body []byte, err error) {
	var head [headerLen]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(head[8+8*i:]) }
	size, fixed := word(0), word(1)
	switch {
	case string(head[:8]) != magic:
		return 0, nil, fmt.Errorf("%w: it begins with %q", ErrProtocol, head[:8])
	case fixed < headerLen || size < fixed || size-headerLen > maxReply:
		return 0, nil, fmt.Errorf("%w: lengths %d and %d", ErrProtocol, size, fixed)
	case word(2) != packet:
		return 0, nil, fmt.Errorf("%w: it is for packet %d, not %d", ErrProtocol, word(2), packet)
	}
	body = make([]byte, size-headerLen)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, err
	}
	return word(3), body, nil
}

// requestStatus makes a request that is answered by a status.
func (c *Client) requestStatus(ctx context.Context, op uint64, fixed, payload []byte) error {
	kind, _, err := c.request(ctx, op, fixed, payload)
	if err == nil && kind != opStatus {
		err = fmt.Errorf("%w: operation %#x instead of a status", ErrProtocol, kind)
	}
	return err
}

// requestData makes a request that is answered by data.
func (c *Client) requestData(ctx context.Context, op uint64, fixed []byte) ([]byte, error) {
	kind, body, err := c.request(ctx, op, fixed, nil)
	if err == nil && kind != opData {
		// Status 0 instead of data means that there is no data.
		if kind == opStatus {
			return nil, nil
		}
		err = fmt.Errorf("%w: operation %#x instead of data", ErrProtocol, kind)
	}
	return body, err
}

func pathArg(path string) ([]byte, error) {
	if path == "" || strings.ContainsRune(path, 0) {
		return nil, fmt.Errorf("%q is not a path", path)
	}
	return append([]byte(path), 0), nil
}

func wrap(op, path string, err error) error {
	if err != nil {
		return fmt.Errorf("%s %s on the device: %w", op, path, err)
	}
	return nil
}

// Info describes a file or folder.
type Info struct {
	Size     int64
	Dir      bool
	Link     string // target of a symbolic link
	Modified time.Time
}

// Stat describes a file or folder.
func (c *Client) Stat(ctx context.Context, path string) (Info, error) {
	arg, err := pathArg(path)
	if err != nil {
		return Info{}, err
	}
	b, err := c.requestData(ctx, opStat, arg)
	if err != nil {
		return Info{}, wrap("stat", path, err)
	}
	var info Info
	pairs := texts(b)
	for i := 0; i+1 < len(pairs); i += 2 {
		n, _ := strconv.ParseInt(pairs[i+1], 10, 64)
		switch pairs[i] {
		case "st_size":
			info.Size = n
		case "st_ifmt":
			info.Dir = pairs[i+1] == "S_IFDIR"
		case "st_mtime":
			info.Modified = time.Unix(0, n).UTC()
		case "LinkTarget":
			info.Link = pairs[i+1]
		}
	}
	if info.Size < 0 {
		return Info{}, wrap("stat", path, fmt.Errorf("%w: a file size of %d", ErrProtocol, info.Size))
	}
	return info, nil
}

// texts splits texts that each end in NUL.
func texts(b []byte) []string {
	s := strings.TrimSuffix(string(b), "\x00")
	if s == "" {
		return nil
	}
	return strings.Split(s, "\x00")
}

// List returns the names in a folder, without "." and "..".
func (c *Client) List(ctx context.Context, path string) ([]string, error) {
	arg, err := pathArg(path)
	if err != nil {
		return nil, err
	}
	b, err := c.requestData(ctx, opList, arg)
	if err != nil {
		return nil, wrap("list", path, err)
	}
	var out []string
	for _, name := range texts(b) {
		if name != "." && name != ".." {
			out = append(out, name)
		}
	}
	return out, nil
}

// Mkdir makes a folder and its missing parents. It is not an error if the folder
// exists.
func (c *Client) Mkdir(ctx context.Context, path string) error {
	arg, err := pathArg(path)
	if err != nil {
		return err
	}
	err = c.requestStatus(ctx, opMkdir, arg, nil)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return wrap("make folder", path, err)
}

// Remove removes a file or an empty folder.
func (c *Client) Remove(ctx context.Context, path string) error {
	arg, err := pathArg(path)
	if err != nil {
		return err
	}
	return wrap("remove", path, c.requestStatus(ctx, opRemove, arg, nil))
}
