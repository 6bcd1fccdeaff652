package main

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/snap-backup/snap/repo/backend/limit"
	"github.com/snap-backup/snap/repo/backend/retry"
	"github.com/spf13/cobra"
)

// lineFlags say how much of the line to stores far away a run may take.
type lineFlags struct {
	upload, download rateFlag
	connections      connectionsFlag
	repeatAfter      time.Duration        // the first wait before an operation is repeated; 0 for the usual one
	limits           func() *limit.Limits // makes them once; see app.lineLimits
}

// register adds the flags to all commands.
func (l *lineFlags) register(cmd *cobra.Command) {
	l.limits = sync.OnceValue(func() *limit.Limits { return limit.New(l.upload.rate, l.download.rate) })
	f := cmd.PersistentFlags()
	f.Var(&l.upload, "limit-upload", "send at most this `rate` to stores far away: KiB per second, or 500KiB, 2MiB")
	f.Var(&l.download, "limit-download", "receive at most this `rate` from stores far away")
	f.Var(&l.connections, "connections", "do at most this `number` of operations at a time in a store far away")
}

// rateFlag is a rate on the command line.
type rateFlag struct{ rate limit.Rate }

func (r *rateFlag) String() string { return r.rate.String() }
func (r *rateFlag) Type() string   { return "rate" }

func (r *rateFlag) Set(text string) (err error) {
	r.rate, err = limit.ParseRate(text)
	return err
}

// connectionsFlag is a number of connections on the command line; 0 if it is not given.
type connectionsFlag int

func (c *connectionsFlag) String() string { return strconv.Itoa(int(*c)) }
func (c *connectionsFlag) Type() string   { return "number" }

func (c *connectionsFlag) Set(text string) error {
	n, err := limit.ParseConnections(text)
	if err == nil {
		*c = connectionsFlag(n)
	}
	return err
}

// lineLimits returns the limits that all stores of this process share.
func (a *app) lineLimits() *limit.Limits {
	if a.line.limits == nil {
		return nil // a test without a command line
	}
	return a.line.limits()
}

// connectionsOf returns how many connections or operations at a time a store may use. The
// value of -o, which is for one kind of store, goes before --connections.
func (a *app) connectionsOf(o storeOptions, key string, usual int) (int, error) {
	if text := o[key]; text != "" {
		n, err := limit.ParseConnections(text)
		if err != nil {
			return 0, usageError{fmt.Errorf("-o %s: %w", key, err)}
		}
		return n, nil
	}
	if n := int(a.line.connections); n > 0 {
		return n, nil
	}
	return usual, nil
}

// atOnce is assumed of stores that do not limit how many operations run at a time.
const atOnce = 16

// repeatOptions returns how operations of a store are repeated. parallel is how many run at a
// time; 0 for no limit.
func (a *app) repeatOptions(parallel int) retry.Options {
	share := parallel
	if share == 0 {
		share = atOnce
	}
	return retry.Options{First: a.line.repeatAfter, Parallel: parallel, Slowest: int64(a.lineLimits().Slowest(share)), Report: a.reportRetry()}
}
