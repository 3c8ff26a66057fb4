package matcher

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-fleet/starling/schemas/wire"
)

const (
	// tapeLinger is how long a tape is kept after its last player has gone, for
	// one that comes back.
	tapeLinger = time.Minute
	// maxTapeFixes bounds one tape: a quarter of an hour's delay at 5 fixes a
	// second.
	maxTapeFixes = 10_000
	// clockSpan is how long the quickest report counts in the estimate of a
	// device's clock; up to twice as long.
	clockSpan = 10 * time.Minute
)

// tapes hold the fixes of the vehicles that are being played out. They cost
// next to nothing while nobody plays.
type tapes struct {
	most int64        // fixes on all tapes together
	open atomic.Int64 // tapes; lets the writer pass without the lock
	held atomic.Int64 // fixes

	mu   sync.Mutex
	byID map[string]*tape
}

// tape is what one vehicle has reported since somebody began to play it out.
type tape struct {
	id      uint64 // drawn when the tape was begun; tokens name it
	vehicle string

	mu       sync.Mutex
	fixes    []playFix // by device time, no two alike
	rebased  uint64    // how often the vehicle was followed to an earlier device time
	newestMS int64     // device time of the newest fix
	lostMS   int64     // device time of the newest fix that was dropped for want of room
	clock    deviceClock
	longest  time.Duration // delay of any player so far
	players  map[*player]struct{}

	closed bool
	joins  uint64 // how often a player joined; guarded by tapes.mu
}

// playFix is a fix on a tape.
type playFix struct {
	deviceTimeMS int64
	wire.Estimate
}

// deviceClock estimates how far a device's clock is behind the log's: by the
// smallest time from a report's newest fix to its arrival, over the last one to
// two clockSpans. The quickest way that a report takes is part of it.
type deviceClock struct {
	sinceMS           int64
	current, previous int64
	known             bool
}

func (c *deviceClock) note(seenMS, deviceTimeMS int64) {
	behind := seenMS - deviceTimeMS
	switch {
	case !c.known:
		*c = deviceClock{sinceMS: seenMS, current: behind, previous: behind, known: true}
	case seenMS-c.sinceMS > clockSpan.Milliseconds():
		c.sinceMS, c.previous, c.current = seenMS, c.current, behind
	default:
		c.current = min(c.current, behind)
	}
}

func (c *deviceClock) behindMS() int64 { return min(c.current, c.previous) }

func newTapes(most int) *tapes { return &tapes{most: int64(most), byID: map[string]*tape{}} }

// join adds a player to its vehicle's tape, which is begun if there is none.
func (t *tapes) join(vehicle string, p *player) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.byID[vehicle]
	if one == nil {
		one = &tape{id: randomID(), vehicle: vehicle, players: map[*player]struct{}{}}
		t.byID[vehicle] = one
		t.open.Add(1)
	}
	one.joins++
	one.mu.Lock()
	defer one.mu.Unlock()
	one.players[p] = struct{}{}
	one.longest = max(one.longest, p.delay)
	p.tape, p.rebased = one, one.rebased
}

// leave takes a player off its tape, which is kept for tapeLinger after the
// last one.
func (t *tapes) leave(p *player) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := p.tape
	one.mu.Lock()
	delete(one.players, p)
	last := len(one.players) == 0
	one.mu.Unlock()
	if joins := one.joins; last {
		time.AfterFunc(tapeLinger, func() { t.close(one, joins) })
	}
}

// close forgets a tape, unless somebody has joined it since.
func (t *tapes) close(one *tape, joins uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one.joins != joins {
		return
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	one.closed = true
	delete(t.byID, one.vehicle)
	t.open.Add(-1)
	t.held.Add(-int64(len(one.fixes)))
	one.fixes = nil
}

// of returns a vehicle's tape, or nil.
func (t *tapes) of(vehicle string) *tape {
	if t.open.Load() == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[vehicle]
}

// record puts a report's fixes on the vehicle's tape.
func (t *tapes) record(one *tape, r *wire.Track) {
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.closed {
		return
	}
	before := len(one.fixes)
	if r.Live.DeviceTimeMS < one.newestMS {
		one.fixes, one.clock, one.lostMS = nil, deviceClock{}, 0
		one.rebased++
	}
	one.newestMS = r.Live.DeviceTimeMS
	for i := range r.Points {
		one.add(&r.Points[i])
	}
	if n := len(r.Points); n > 0 {
		one.clock.note(r.Live.SeenTimeMS, r.Points[n-1].Fix.DeviceTimeMS)
	}
	one.drop(one.played(r.Live.SeenTimeMS), false)
	one.drop(len(one.fixes)-maxTapeFixes, true)
	if over := t.held.Load() + int64(len(one.fixes)-before) - t.most; over > 0 {
		one.drop(int(min(over, int64(len(one.fixes)))), true)
	}
	t.held.Add(int64(len(one.fixes) - before))
}

// add puts a fix in its place.
func (t *tape) add(p *wire.TrackPoint) {
	f := playFix{p.Fix.DeviceTimeMS, p.Estimate}
	i, there := t.find(f.deviceTimeMS)
	if there {
		return
	}
	for p := range t.players {
		if f.deviceTimeMS <= p.playedMS && p.rebased == t.rebased {
			p.skipped++
		}
	}
	t.fixes = slices.Insert(t.fixes, i, f)
}

// find returns the place of the first fix that is not before a device time, and
// whether it is of that time.
func (t *tape) find(deviceTimeMS int64) (int, bool) {
	if n := len(t.fixes); n == 0 || t.fixes[n-1].deviceTimeMS < deviceTimeMS {
		return n, false
	}
	return slices.BinarySearchFunc(t.fixes, deviceTimeMS, func(f playFix, ms int64) int { return cmp.Compare(f.deviceTimeMS, ms) })
}

// played is how many fixes at the tape's start no player needs any more, not
// even one that comes back. It is 0 while there are few of them.
func (t *tape) played(nowMS int64) int {
	since := nowMS - t.clock.behindMS() - 2*t.longest.Milliseconds() - tapeLinger.Milliseconds()
	n, _ := t.find(since)
	if n < len(t.fixes)/4 {
		return 0
	}
	return n
}

// drop removes the first n fixes. Players that had some of them to come count
// them as skipped. Wanted fixes go for want of room; the others are so old that
// every head has passed them.
func (t *tape) drop(n int, wanted bool) {
	if n <= 0 {
		return
	}
	if wanted {
		t.lostMS = t.fixes[n-1].deviceTimeMS
	}
	for p := range t.players {
		if from, _ := t.find(p.playedMS + 1); from < n && p.rebased == t.rebased {
			p.skipped += n - from
		}
	}
	t.fixes = slices.Delete(t.fixes, 0, n)
}

func randomID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}
