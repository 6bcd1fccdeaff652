package agent

import (
	"github.com/snap-backup/snap/device/protocol/devicelink"
	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/hostfiles"
	"github.com/snap-backup/snap/device/simulator/hostile"
	"github.com/snap-backup/snap/device/simulator/mberror"
)

// quirks holds the faults of the next batch.
type quirks struct {
	readError, twice bool
	total            int64 // size to declare instead of the real one, if over 0
}

// reach reports that the operation has reached a step, and triggers the faults that
// are due there.
func (t *session) reach(step faults.Step) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	t.agent.note(t.run, func(r *Run) {
		if n := len(r.Steps); n == 0 || r.Steps[n-1] != step {
			r.Steps = append(r.Steps, step)
		}
	})
	if t.agent.opts.OnStep != nil {
		t.agent.opts.OnStep(step)
	}
	if step == faults.StepBegin && t.agent.opts.OnBegin != nil {
		present, end := t.conn.Present(t.ctx)
		t.agent.opts.OnBegin(present)
		end()
	}
	for _, f := range t.faults.Due(step) {
		if err := t.trigger(f); err != nil {
			return err
		}
	}
	return nil
}

// trigger triggers a fault.
func (t *session) trigger(f faults.Fault) error {
	switch f.Do {
	case faults.Cut:
		t.conn.Cut()
		return hostfiles.ErrCut
	case faults.Bye:
		if err := t.link.Disconnect(); err != nil {
			return err
		}
		return hostfiles.ErrOver
	case faults.Fail:
		return mberror.Of(f.Code)
	case faults.Wait:
		return t.sleep(f.For)
	case faults.Ping:
		return t.link.WriteMessage("DLMessagePing", "are you there")
	case faults.Unknown:
		s, err := t.Ask("DLMessageOfTheFuture", map[string]any{"Hello": 1})
		if err == nil && s.Code == devicelink.StatusOK {
			t.agent.violate("the host accepts an unknown message")
		}
		return err
	case faults.ReadError:
		t.quirks.readError = true
	case faults.Twice:
		t.quirks.twice = true
	case faults.Huge:
		t.quirks.total = f.Bytes
	case faults.Attack:
		target := &hostile.Target{Client: t.Client, Link: t.link, Conn: t.conn, UDID: t.agent.device.UDID, Violate: t.agent.violate}
		return hostile.Named(f.Name)(target, f.Bytes)
	}
	return nil
}
