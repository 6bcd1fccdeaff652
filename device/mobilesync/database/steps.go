package database

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"sync/atomic"
	"unsafe"

	"modernc.org/libc"
	sqlitelib "modernc.org/sqlite/lib"
)

// stepsPerCall is how many steps SQLite makes between two calls of spend. One step may
// take long, for example one that makes a large value.
const stepsPerCall = 100

// budget is how many steps of SQLite's virtual machine a connection may still make.
// The driver can stop a query only in its first step. SQLite calls spend every
// stepsPerCall steps of any statement, even of those that it prepares itself.
type budget struct {
	ctx  context.Context
	left atomic.Int64
}

// spend reports whether SQLite must stop.
func (b *budget) spend() bool {
	return b.left.Add(-stepsPerCall) < 0 || b.ctx.Err() != nil
}

// budgets has the budgets of open connections, by the handle that SQLite passes to a
// callback.
var budgets sync.Map // uintptr -> *budget

func onProgress(_ *libc.TLS, handle uintptr) int32 {
	if b, ok := budgets.Load(handle); !ok || b.(*budget).spend() {
		return 1
	}
	return 0
}

// limitSteps makes SQLite stop when the budget is spent or its context is done. The
// driver has no call for that. It would remove this limit if it got a context that
// can end, so no query of this package has one.
func (d *DB) limitSteps() error {
	return d.conn.Raw(func(raw any) error {
		v := reflect.Indirect(reflect.ValueOf(raw))
		if v.Kind() != reflect.Struct {
			return errNoHandle
		}
		if v = v.FieldByName("db"); !v.IsValid() || v.Kind() != reflect.Uintptr || v.Uint() == 0 {
			return errNoHandle
		}
		d.handle = uintptr(v.Uint())
		budgets.Store(d.handle, &d.budget)
		tls := libc.NewTLS()
		defer tls.Close()
		sqlitelib.Xsqlite3_progress_handler(tls, d.handle, stepsPerCall, callback(onProgress), d.handle)
		return nil
	})
}

var errNoHandle = errors.New("this version of the database driver cannot be limited")

// callback returns a function as the driver passes functions to SQLite.
func callback(f func(*libc.TLS, uintptr) int32) uintptr {
	return *(*uintptr)(unsafe.Pointer(&struct {
		f func(*libc.TLS, uintptr) int32
	}{f}))
}
