// Package playout plays a vehicle's fixes out at the pace at which they were
// taken. A buffer holds what a vehicle has reported since somebody began to play
// it out; a cursor goes through it for one call. It is imported by the matcher.
package playout

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-fleet/starling/matcher/randid"
	"github.com/starling-fleet/starling/schemas/wire"
)

const (
	// linger is how long a buffer is kept after its last cursor has gone, for
	// one that comes back.
	linger = time.Minute
	// maxBufferFixes bounds one buffer: a quarter of an hour's delay at 5 fixes a
	// second.
	maxBufferFixes = 10_000
	// clockSpan is how long the quickest report counts in the estimate of a
	// device's clock; up to twice as long.
	clockSpan = 10 * time.Minute
)

// Buffers hold the fixes of the vehicles that are being played out. They cost
// next to nothing while nobody plays.
type Buffers struct {
	most int64        // fixes in all buffers together
	open atomic.Int64 // buffers; lets the writer pass without the lock
	held atomic.Int64 // fixes

	mu   sync.Mutex
	byID map[string]*Buffer
}

// Buffer is what one vehicle has reported since somebody began to play it out.
type Buffer struct {
	id      uint64 // drawn when the buffer was begun; tokens name it
	vehicle string

	mu       sync.Mutex
	fixes    []Fix  // by device time, no two alike
	rebased  uint64 // how often the vehicle was followed to an earlier device time
	newestMS int64  // device time of the newest fix
	lostMS   int64  // device time of the newest fix that was dropped because there were too many
	clock    deviceClock
	longest  time.Duration // delay of any cursor so far
	cursors  map[*Cursor]struct{}

	closed bool
	joins  uint64 // how often a cursor joined; guarded by Buffers.mu
}

// Fix is a fix in a buffer.
type Fix struct {
	DeviceTimeMS int64
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

// Held returns the number of fixes in all buffers.
func (t *Buffers) Held() int64 { return t.held.Load() }

// New returns no buffers yet, which together hold at most so many fixes.
func New(most int) *Buffers { return &Buffers{most: int64(most), byID: map[string]*Buffer{}} }

// Join adds a cursor to its vehicle's buffer, which is begun if there is none.
func (t *Buffers) Join(vehicle string, p *Cursor) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.byID[vehicle]
	if one == nil {
		one = &Buffer{id: randid.New(), vehicle: vehicle, cursors: map[*Cursor]struct{}{}}
		t.byID[vehicle] = one
		t.open.Add(1)
	}
	one.joins++
	one.mu.Lock()
	defer one.mu.Unlock()
	one.cursors[p] = struct{}{}
	one.longest = max(one.longest, p.delay)
	p.buffer, p.rebased = one, one.rebased
}

// Leave takes a cursor off its buffer, which is kept for linger after the
// last one.
func (t *Buffers) Leave(p *Cursor) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := p.buffer
	if joins := one.joins; one.leave(p) {
		time.AfterFunc(linger, func() { t.close(one, joins) })
	}
}

// leave reports whether a cursor was the last one.
func (t *Buffer) leave(p *Cursor) (last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.cursors, p)
	return len(t.cursors) == 0
}

// close forgets a buffer, unless somebody has joined it since.
func (t *Buffers) close(one *Buffer, joins uint64) {
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

// Of returns a vehicle's buffer, or nil.
func (t *Buffers) Of(vehicle string) *Buffer {
	if t.open.Load() == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[vehicle]
}

// Record puts a report's fixes on the vehicle's buffer.
func (t *Buffers) Record(one *Buffer, r *wire.Track) {
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
	one.drop(len(one.fixes)-maxBufferFixes, true)
	if over := t.held.Load() + int64(len(one.fixes)-before) - t.most; over > 0 {
		one.drop(int(min(over, int64(len(one.fixes)))), true)
	}
	t.held.Add(int64(len(one.fixes) - before))
}

// add puts a fix in its place.
func (t *Buffer) add(p *wire.TrackPoint) {
	f := Fix{p.Fix.DeviceTimeMS, p.Estimate}
	i, there := t.find(f.DeviceTimeMS)
	if there {
		return
	}
	for p := range t.cursors {
		if f.DeviceTimeMS <= p.playedMS && p.rebased == t.rebased {
			p.skipped++
		}
	}
	t.fixes = slices.Insert(t.fixes, i, f)
}

// find returns the place of the first fix that is not before a device time, and
// whether it is of that time.
func (t *Buffer) find(deviceTimeMS int64) (int, bool) {
	if n := len(t.fixes); n == 0 || t.fixes[n-1].DeviceTimeMS < deviceTimeMS {
		return n, false
	}
	return slices.BinarySearchFunc(t.fixes, deviceTimeMS, func(f Fix, ms int64) int { return cmp.Compare(f.DeviceTimeMS, ms) })
}

// played is how many fixes at the buffer's start no cursor needs any more, not
// even one that comes back. It is 0 while there are few of them.
func (t *Buffer) played(nowMS int64) int {
	since := nowMS - t.clock.behindMS() - 2*t.longest.Milliseconds() - linger.Milliseconds()
	n, _ := t.find(since)
	if n < len(t.fixes)/4 {
		return 0
	}
	return n
}

// drop removes the first n fixes. Cursors that had some of them to come count
// them as skipped. Wanted fixes go because there were too many; the others are so old that
// every head has passed them.
func (t *Buffer) drop(n int, wanted bool) {
	if n <= 0 {
		return
	}
	if wanted {
		t.lostMS = t.fixes[n-1].DeviceTimeMS
	}
	for p := range t.cursors {
		if from, _ := t.find(p.playedMS + 1); from < n && p.rebased == t.rebased {
			p.skipped += n - from
		}
	}
	t.fixes = slices.Delete(t.fixes, 0, n)
}
