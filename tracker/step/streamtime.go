package step

import (
	"cmp"
	"slices"
)

// jump is a stretch of stamps that lie further from stream time than
// Settings.ClockJumpMS, all on one side of it: its first and its latest stamp.
// Zero stands for none.
type jump struct {
	sinceMS, lastMS int64
}

func (j jump) pending() bool { return j.sinceMS != 0 }

// advance moves stream time by the next stamp and returns by how much a jump was
// believed, 0 for none.
//
// A stamp near stream time moves it forward, never back. One beyond ClockJumpMS
// moves nothing until stamps have stayed there for ClockSettleMS of their own
// time: a single broken stamp, or a server's clock that is wrong for seconds,
// closes no window and forgets no vehicle.
func (p *Partition) advance(stampMS int64) (believedMS int64) {
	d := stampMS - p.streamMS
	if p.streamMS == 0 || max(d, -d) <= p.settings.ClockJumpMS {
		p.jump = jump{}
		p.streamMS = max(p.streamMS, stampMS)
		return 0
	}
	j := &p.jump
	otherSide := (j.lastMS > p.streamMS) != (stampMS > p.streamMS)
	if !j.pending() || otherSide || stampMS < j.sinceMS || stampMS-j.lastMS > p.settings.ClockJumpMS {
		*j = jump{stampMS, stampMS}
		return 0
	}
	j.lastMS = max(j.lastMS, stampMS)
	if stampMS-j.sinceMS < p.settings.ClockSettleMS {
		return 0
	}
	p.believe(stampMS)
	return d
}

// believe sets stream time after a jump. Back: every time that was taken from
// it moves by as much, so that all stretches keep their lengths. Forward: the
// vehicles that have reported since the jump were not silent.
func (p *Partition) believe(stampMS int64) {
	shiftMS := stampMS - p.streamMS
	for _, v := range p.byID() {
		switch {
		case shiftMS < 0:
			v.shift(shiftMS)
		case v.jumpSinceMS == p.jump.sinceMS:
			v.sessions.seenAgain(p.streamMS, stampMS)
			v.seenMS, v.publishedMS = stampMS, stampMS
		default:
			continue
		}
		p.markChanged(v)
	}
	p.streamMS, p.jump = stampMS, jump{}
	if shiftMS < 0 {
		p.repeated.atMS += shiftMS
		p.scheduleAll() // timers expire earlier than they are scheduled
	}
}

// shift moves every stream time that the vehicle holds.
func (v *vehicle) shift(byMS int64) {
	v.seenMS += byMS
	v.publishedMS += byMS
	v.sessions.shift(byMS)
	if v.behind.sinceMS != 0 {
		v.behind.sinceMS += byMS
	}
	if v.conflictUntilMS != 0 {
		v.conflictUntilMS += byMS
	}
	if v.clock.count > 0 {
		v.clock.blockMS += byMS
		v.clock.agreedSinceMS += byMS
	}
}

// byID returns all vehicles in the order of their ids.
func (p *Partition) byID() []*vehicle {
	all := make([]*vehicle, 0, len(p.vehicles))
	for _, v := range p.vehicles {
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b *vehicle) int { return cmp.Compare(a.id, b.id) })
	return all
}
