package limit

import (
	"fmt"
	"strconv"
	"strings"
)

// Rate is a number of bytes per second; 0 is no limit.
type Rate int64

const (
	kib = 1 << 10
	// least is the lowest limit. With less, no connection could finish its handshake.
	least = kib
	most  = 1 << 40
)

// units are what may follow a number.
var units = []struct {
	name string
	size float64
}{{"KiB", kib}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"K", kib}, {"M", 1 << 20}, {"G", 1 << 30}}

// ParseRate parses a rate: a number of KiB per second, as in restic, or a number with K, KiB,
// M, MiB, G or GiB. "/s" may follow. 0 is no limit.
func ParseRate(text string) (Rate, error) {
	number, unit := strings.TrimSpace(strings.TrimSuffix(text, "/s")), float64(kib)
	for _, u := range units {
		if n, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = strings.TrimSpace(n), u.size
			break
		}
	}
	v, err := strconv.ParseFloat(number, 64)
	v *= unit
	switch {
	case err != nil || !(v >= 0):
		return 0, fmt.Errorf("%.100q is not a rate such as 500 (KiB per second), 500KiB or 2MiB; a line of 8 Mbit/s carries about 1MiB", text)
	case v != 0 && v < least:
		return 0, fmt.Errorf("%.100q is less than 1 KiB per second", text)
	case v > most:
		return 0, fmt.Errorf("%.100q is more than 1024 GiB per second", text)
	}
	return Rate(v), nil
}

// String returns the rate as [ParseRate] reads it.
func (r Rate) String() string {
	switch {
	case r == 0:
		return "0"
	case r%(1<<30) == 0:
		return strconv.FormatInt(int64(r>>30), 10) + "GiB"
	case r%(1<<20) == 0:
		return strconv.FormatInt(int64(r>>20), 10) + "MiB"
	}
	return strconv.FormatFloat(float64(r)/kib, 'f', -1, 64) + "KiB"
}

const maxConnections = 100

// ParseConnections parses a number of connections.
func ParseConnections(text string) (int, error) {
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || n < 1 || n > maxConnections {
		return 0, fmt.Errorf("want a number from 1 to %d, not %.100q", maxConnections, text)
	}
	return n, nil
}
