package repo_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/keep"
	"github.com/snap-backup/snap/repo/repotest"
	"pgregory.net/rapid"
)

// clocked is a repository of one device. Computers with wrong clocks store in it and
// forget by rules.
type clocked struct {
	*rapid.T
	be         *memory.Backend
	r          *repo.Repo
	truth, off time.Duration
	local      bool          // the store's clock is that of the computer
	ahead      bool          // a snapshot was stored by a clock that was ahead
	behind     bool          // one was stored by a clock that was behind
	nights     []repo.FileID // in the order of storing
	good       map[repo.FileID]bool
	order      *rand.Rand
}

var firstNight = time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)

func newClocked(t *rapid.T) *clocked {
	c := &clocked{
		T: t, be: memory.New(), local: rapid.Bool().Draw(t, "local"), good: map[repo.FileID]bool{},
		order: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0)),
	}
	c.be.SetClock(func() time.Time {
		if c.local {
			return c.clock()
		}
		return firstNight.Add(c.truth)
	})
	opts := repotest.Options(1)
	opts.Now = c.clock
	var err error
	if c.r, err = repo.Create(context.Background(), c.be, repotest.Secret, crypto.SlotInfo{Kind: crypto.PasswordSlot}, opts); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *clocked) clock() time.Time { return firstNight.Add(c.truth + c.off) }

func (c *clocked) list() []*repo.Snapshot {
	list, _, err := c.r.Snapshots(context.Background())
	if err != nil {
		c.Fatal(err)
	}
	return list
}

// turn sets the clock of the computer that does the next step.
func (c *clocked) turn(what string, right bool) {
	const day = 24 * time.Hour
	c.truth += time.Duration(rapid.IntRange(2, 60).Draw(c.T, "hours")) * time.Hour
	c.off = 0
	if !right {
		c.off = time.Duration(rapid.SampledFrom([]int{-2200, -2199, -200, 1500, 400}).Draw(c.T, what)) * day
	}
}

// store stores a snapshot as an import does.
func (c *clocked) store(right bool) {
	c.turn("clock of an import", right)
	list := c.list()
	s := &repo.Snapshot{Device: repo.Device{UDID: "A"}, Complete: true, Time: c.clock()}
	var parent *repo.Snapshot
	for _, o := range list {
		if parent == nil || o.StoredAt.After(parent.StoredAt) {
			parent = o
		}
	}
	if parent != nil {
		s.Parent = &parent.ID
	}
	s.Follow(list)
	w := c.r.NewWriter(context.Background())
	defer w.Close()
	if err := w.Commit(context.Background(), s); err != nil {
		c.Fatal(err)
	}
	c.nights = append(c.nights, s.ID)
	c.good[s.ID] = right
	c.ahead, c.behind = c.ahead || c.off > 0, c.behind || c.off < 0
}

// forget forgets by a rule, and judges what it forgets.
func (c *clocked) forget(right bool) {
	c.turn("clock of a forget", right)
	n := rapid.IntRange(1, 3).Draw(c.T, "n")
	policy := rapid.SampledFrom([]keep.Policy{{Last: n}, {Daily: n}, {Monthly: n}, {Within: keep.Duration{Days: n}}}).Draw(c.T, "policy")
	list := c.list()
	going := repo.Forgotten(repo.Retain(list, list, nil, &policy, c.clock(), time.UTC))
	// The same in any order.
	again := c.list()
	c.order.Shuffle(len(again), func(i, j int) { again[i], again[j] = again[j], again[i] })
	if got := fmt.Sprint(ids(repo.Forgotten(repo.Retain(again, again, nil, &policy, c.clock(), time.UTC)))); got != fmt.Sprint(ids(going)) {
		c.Fatalf("the rule removes %v, and then %v", ids(going), got)
	}
	var left []repo.FileID // that are good
	for _, s := range list {
		if c.good[s.ID] {
			left = append(left, s.ID)
		}
	}
	slices.SortFunc(left, func(a, b repo.FileID) int { return slices.Index(c.nights, a) - slices.Index(c.nights, b) })
	for _, s := range going {
		switch {
		case s.ID == c.nights[len(c.nights)-1]:
			c.Fatalf("%+v removes the last of %d nights", policy, len(c.nights))
		case c.off > 0 || c.ahead && c.behind:
			// Snapshots of a clock that was as wrong as this one seem right. And when a
			// person has forgotten snapshots that were ahead, what a later one knew by
			// them is gone.
		case !c.good[s.ID]:
			c.Fatalf("%+v removes night %d, which has a wrong date, %s", policy, slices.Index(c.nights, s.ID), s.StoredAt)
		case policy.Last > 0 && slices.Index(left, s.ID) >= len(left)-policy.Last:
			c.Fatalf("%+v removes one of the last good nights, %d", policy, slices.Index(c.nights, s.ID))
		}
	}
	c.remove(ids(going)...)
}

// forgetAny forgets any snapshot but the last one and the last good one, as a person does.
func (c *clocked) forgetAny() {
	all := c.list()
	isGood := func(s *repo.Snapshot) bool { return c.good[s.ID] }
	var good int
	for _, s := range all {
		if isGood(s) {
			good++
		}
	}
	list := slices.DeleteFunc(all, func(s *repo.Snapshot) bool {
		return s.ID == c.nights[len(c.nights)-1] || good == 1 && isGood(s)
	})
	if len(list) > 0 {
		c.remove(list[rapid.IntRange(0, len(list)-1).Draw(c.T, "forgotten")].ID)
	}
}

func (c *clocked) remove(ids ...repo.FileID) {
	if err := c.r.Forget(context.Background(), ids...); err != nil {
		c.Fatal(err)
	}
}

func ids(list []*repo.Snapshot) []repo.FileID {
	var out []repo.FileID
	for _, s := range list {
		out = append(out, s.ID)
	}
	slices.SortFunc(out, func(a, b repo.FileID) int { return slices.Compare(a[:], b[:]) })
	return out
}

// Rules never remove the snapshot of a device that was stored last, nor one that a wrong
// clock dated, and such a one takes no other's place: whatever was forgotten before. The
// former holds for every mix of clocks, the latter if clocks are wrong in one direction.
func TestRetentionWithWrongClocks(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := newClocked(t)
		c.store(true)
		for range rapid.IntRange(3, 16).Draw(t, "steps") {
			switch rapid.IntRange(0, 6).Draw(t, "step") {
			case 0, 1:
				c.store(true)
			case 2, 3:
				c.store(false)
			case 4:
				c.forget(true)
			case 5:
				c.forget(false)
			default:
				c.forgetAny()
			}
		}
	})
}
