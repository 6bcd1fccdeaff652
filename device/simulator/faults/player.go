package faults

import (
	"slices"
	"sync"
)

// Player says when the faults of a script are due. Each fault happens once,
// even across conversations.
type Player struct {
	mu     sync.Mutex
	left   Script
	seen   map[Step]int
	cutAt  int64 // number of bytes before the cut; 0 means no cut
	passed int64
}

// NewPlayer returns a player of s.
func NewPlayer(s Script) *Player {
	p := &Player{seen: map[Step]int{}}
	for _, f := range s {
		if f.At == "" {
			p.cutAt = f.After
		} else {
			p.left = append(p.left, f)
		}
	}
	return p
}

// Due records that a step was reached, and returns the faults that are due there.
func (p *Player) Due(step Step) Script {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[step]++
	var now Script
	p.left = slices.DeleteFunc(p.left, func(f Fault) bool {
		hit := f.At == step && p.seen[step] == max(f.Nth, 1)
		if hit {
			now = append(now, f)
		}
		return hit
	})
	return now
}

// pass counts n further bytes. It returns how many of these bytes may pass, and
// whether the connection must then be cut.
func (p *Player) pass(n int) (allowed int, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cutAt > 0 && p.passed+int64(n) >= p.cutAt {
		allowed = int(p.cutAt - p.passed)
		p.cutAt = 0
		return allowed, true
	}
	p.passed += int64(n)
	return n, false
}
