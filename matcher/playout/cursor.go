package playout

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Cursor plays a vehicle's buffer out for one call.
//
// Its head is the device time that it has got to. The head follows a target,
// which is the delay behind now on the device's clock. It never goes back. When
// it is behind, because fixes came late or the client was away, it runs at
// double pace, and when it is behind by more than the delay it jumps forward to
// that. At the end of the buffer it waits for the next fix, so that what comes
// late is played and not jumped over.
type Cursor struct {
	delay  time.Duration
	buffer *Buffer

	// What follows is guarded by Buffer.mu.

	rebased  uint64 // the buffer's when the head was set
	started  bool   // the head is set, for which the device's clock must be known
	headMS   int64
	atMS     int64 // when the head was there
	atEnd    bool  // no fix was left then
	playedMS int64 // device time of the last fix sent
	skipped  int   // fixes passed by unsent since
}

// Start sets a new cursor's head and returns the fix to begin with. Without one
// in the buffer that is live.
func (p *Cursor) Start(nowMS int64, live *liveindex.Vehicle) (fix Fix, onTape bool) {
	t := p.buffer
	t.mu.Lock()
	defer t.mu.Unlock()
	if live.DeviceTimeMS != 0 && !t.clock.known {
		t.newestMS = live.DeviceTimeMS
		t.clock.note(live.SeenTimeMS, live.DeviceTimeMS)
	}
	p.playedMS = live.DeviceTimeMS
	return p.begin(nowMS)
}

// begin sets the head to the target, if the device's clock is known, and
// returns the newest fix that is due, else the oldest.
func (p *Cursor) begin(nowMS int64) (fix Fix, ok bool) {
	t := p.buffer
	if p.rebased = t.rebased; !t.clock.known {
		p.started = false
		return fix, false
	}
	p.started, p.atEnd, p.skipped = true, true, 0
	p.atMS, p.headMS = nowMS, p.target(nowMS)
	if len(t.fixes) == 0 {
		return fix, false
	}
	i, there := t.find(p.headMS)
	if !there && i > 0 {
		i--
	}
	p.playedMS, p.atEnd = t.fixes[i].DeviceTimeMS, i == len(t.fixes)-1
	return t.fixes[i], true
}

// Resume sets the head behind the last fix that an earlier call sent and
// returns that fix, or reports that the buffer does not hold what followed.
func (p *Cursor) Resume(nowMS int64, from Position) (fix Fix, ok bool) {
	t := p.buffer
	t.mu.Lock()
	defer t.mu.Unlock()
	i, there := t.find(from.PlayedMS)
	if from.Buffer != t.id || from.Rebased != t.rebased || from.PlayedMS < t.lostMS || !there {
		return fix, false
	}
	p.started, p.rebased = true, t.rebased
	p.atMS, p.headMS, p.playedMS = nowMS, from.PlayedMS, from.PlayedMS
	p.atEnd = i == len(t.fixes)-1
	return t.fixes[i], true
}

// target is the device time that is due now.
func (p *Cursor) target(nowMS int64) int64 {
	return nowMS - p.buffer.clock.behindMS() - p.delay.Milliseconds()
}

// Play moves the head on to now. It returns the newest fix that it has passed,
// if any, and how long it takes to the next; next is negative when none is at
// hand.
func (p *Cursor) Play(nowMS int64) (fix Fix, due bool, next time.Duration) {
	t := p.buffer
	t.mu.Lock()
	defer t.mu.Unlock()
	if !p.started || p.rebased != t.rebased {
		fix, due = p.begin(nowMS)
	}
	target := p.advance(nowMS)
	from, _ := t.find(p.playedMS + 1)
	to, there := t.find(p.headMS)
	if there {
		to++
	}
	if to > from {
		fix, due = t.fixes[to-1], true
		p.skipped += to - from - 1
		p.playedMS = fix.DeviceTimeMS
		from = to
	}
	if p.atEnd = from == len(t.fixes); p.atEnd {
		return fix, due, -1
	}
	return fix, due, p.until(t.fixes[from].DeviceTimeMS, target)
}

// advance moves the head on to now and returns the target.
func (p *Cursor) advance(nowMS int64) (target int64) {
	target = p.target(nowMS)
	head := min(target, p.headMS+2*max(0, nowMS-p.atMS))
	if p.atEnd {
		head = min(head, p.playedMS)
	}
	p.atMS, p.headMS = nowMS, max(p.headMS, head, target-p.delay.Milliseconds())
	return target
}

// until is the time that the head takes to a device time ahead of it.
func (p *Cursor) until(deviceTimeMS, target int64) time.Duration {
	way, behind := deviceTimeMS-p.headMS, target-p.headMS
	if behind > 0 && way <= 2*behind {
		return time.Duration(way+1) / 2 * time.Millisecond
	}
	return time.Duration(deviceTimeMS-target) * time.Millisecond
}

// Message is where the play-out stands with a fix, and what was skipped since
// the last time.
func (p *Cursor) Message(nowMS, deviceTimeMS int64) *starlingv1.Playback {
	t := p.buffer
	t.mu.Lock()
	defer t.mu.Unlock()
	from, _ := t.find(p.playedMS + 1)
	out := &starlingv1.Playback{BufferedFixes: int32(len(t.fixes) - from), SkippedFixes: int32(p.skipped)}
	p.skipped = 0
	if deviceTimeMS != 0 {
		behind := t.clock.behindMS()
		out.DeviceClockAhead = durationpb.New(time.Duration(-behind) * time.Millisecond)
		out.Age = durationpb.New(time.Duration(max(0, nowMS-behind-deviceTimeMS)) * time.Millisecond)
	}
	return out
}

// Position is how a later call goes on from here.
func (p *Cursor) Position() Position {
	p.buffer.mu.Lock()
	defer p.buffer.mu.Unlock()
	return Position{PlayedMS: p.playedMS, Buffer: p.buffer.id, Rebased: p.rebased}
}

// Position is how far a call has played.
type Position struct {
	// Buffer names the buffer; 0 if nothing was played.
	Buffer uint64
	// Rebased is how often the vehicle had been followed to an earlier device
	// time.
	Rebased uint64
	// PlayedMS is the device time of the last fix sent.
	PlayedMS int64
}

// NewCursor returns a cursor that is so far behind. It must join a buffer.
func NewCursor(delay time.Duration) *Cursor { return &Cursor{delay: delay} }

// Apply makes a vehicle's state that of a fix, in what a fix carries.
func (f *Fix) Apply(v *liveindex.Vehicle, cursor *h3.Cursor) {
	if v.Cell != 0 {
		// A position that was published is inside H3's domain.
		if cell, err := cursor.Cell(f.LatDeg, f.LonDeg, v.Cell.Resolution()); err == nil {
			v.Cell = cell
		}
	}
	v.DeviceTimeMS = f.DeviceTimeMS
	v.LatDeg, v.LonDeg, v.Verdict = f.LatDeg, f.LonDeg, f.Verdict
	v.SpeedMPS, v.HeadingDeg, v.HasSpeed, v.HasHeading = f.SpeedMPS, f.HeadingDeg, f.HasSpeed, f.HasHeading
	v.VarEastM2, v.CovEastNorthM2, v.VarNorthM2 = f.VarEastM2, f.CovEastNorthM2, f.VarNorthM2
}
