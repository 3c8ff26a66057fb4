package matcher

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// player plays a vehicle's tape out for one call.
//
// Its head is the device time that it has got to. The head follows a target,
// which is the delay behind now on the device's clock. It never goes back. When
// it is behind, because fixes came late or the client was away, it runs at
// double pace, and when it is behind by more than the delay it jumps forward to
// that. At the end of the tape it waits for the next fix, so that what comes
// late is played and not jumped over.
type player struct {
	delay time.Duration
	tape  *tape

	// What follows is guarded by tape.mu.

	rebased  uint64 // the tape's when the head was set
	started  bool   // the head is set, for which the device's clock must be known
	headMS   int64
	atMS     int64 // when the head was there
	atEnd    bool  // no fix was left then
	playedMS int64 // device time of the last fix sent
	skipped  int   // fixes passed by unsent since
}

// start sets a new player's head and returns the fix to begin with. Without one
// on the tape that is live.
func (p *player) start(nowMS int64, live *liveindex.Vehicle) (fix playFix, onTape bool) {
	t := p.tape
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
func (p *player) begin(nowMS int64) (fix playFix, ok bool) {
	t := p.tape
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
	p.playedMS, p.atEnd = t.fixes[i].deviceTimeMS, i == len(t.fixes)-1
	return t.fixes[i], true
}

// resume sets the head behind the last fix that an earlier call sent and
// returns that fix, or says that the tape does not hold what followed.
func (p *player) resume(nowMS int64, from vehicleToken) (fix playFix, ok bool) {
	t := p.tape
	t.mu.Lock()
	defer t.mu.Unlock()
	i, there := t.find(from.playedMS)
	if from.tape != t.id || from.rebased != t.rebased || from.playedMS < t.lostMS || !there {
		return fix, false
	}
	p.started, p.rebased = true, t.rebased
	p.atMS, p.headMS, p.playedMS = nowMS, from.playedMS, from.playedMS
	p.atEnd = i == len(t.fixes)-1
	return t.fixes[i], true
}

// target is the device time that is due now.
func (p *player) target(nowMS int64) int64 {
	return nowMS - p.tape.clock.behindMS() - p.delay.Milliseconds()
}

// play moves the head on to now. It returns the newest fix that it has passed,
// if any, and how long it takes to the next; next is negative when none is at
// hand.
func (p *player) play(nowMS int64) (fix playFix, due bool, next time.Duration) {
	t := p.tape
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
		p.playedMS = fix.deviceTimeMS
		from = to
	}
	if p.atEnd = from == len(t.fixes); p.atEnd {
		return fix, due, -1
	}
	return fix, due, p.until(t.fixes[from].deviceTimeMS, target)
}

// advance moves the head on to now and returns the target.
func (p *player) advance(nowMS int64) (target int64) {
	target = p.target(nowMS)
	head := min(target, p.headMS+2*max(0, nowMS-p.atMS))
	if p.atEnd {
		head = min(head, p.playedMS)
	}
	p.atMS, p.headMS = nowMS, max(p.headMS, head, target-p.delay.Milliseconds())
	return target
}

// until is the time that the head takes to a device time ahead of it.
func (p *player) until(deviceTimeMS, target int64) time.Duration {
	way, behind := deviceTimeMS-p.headMS, target-p.headMS
	if behind > 0 && way <= 2*behind {
		return time.Duration(way+1) / 2 * time.Millisecond
	}
	return time.Duration(deviceTimeMS-target) * time.Millisecond
}

// message says where the play-out stands with a fix, and what was skipped since
// the last time.
func (p *player) message(nowMS, deviceTimeMS int64) *starlingv1.Playback {
	t := p.tape
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

// token is how a later call goes on from here.
func (p *player) token(seenMS int64) vehicleToken {
	p.tape.mu.Lock()
	defer p.tape.mu.Unlock()
	return vehicleToken{seenMS: seenMS, playedMS: p.playedMS, tape: p.tape.id, rebased: p.rebased}
}

// wind makes a vehicle's state that of a fix, in what a fix says.
func (f *playFix) wind(v *liveindex.Vehicle, cursor *h3.Cursor) {
	if v.Cell != 0 {
		// A position that was published is inside H3's domain.
		if cell, err := cursor.Cell(f.LatDeg, f.LonDeg, v.Cell.Resolution()); err == nil {
			v.Cell = cell
		}
	}
	v.DeviceTimeMS = f.deviceTimeMS
	v.LatDeg, v.LonDeg, v.Verdict = f.LatDeg, f.LonDeg, f.Verdict
	v.SpeedMPS, v.HeadingDeg, v.HasSpeed, v.HasHeading = f.SpeedMPS, f.HeadingDeg, f.HasSpeed, f.HasHeading
	v.VarEastM2, v.CovEastNorthM2, v.VarNorthM2 = f.VarEastM2, f.CovEastNorthM2, f.VarNorthM2
}
