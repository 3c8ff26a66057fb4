package step

import "github.com/starling-fleet/starling/schemas/wire"

// A device's clock may jump. Once it has jumped ahead, every fix of the right
// time is behind the window; after it was set back, every new fix is. Both
// would freeze the vehicle until its device time catches up, so the vehicle is
// rebased: its window closes, the filter forgets, and the report that was the
// reason starts a new track. Reports from before it then count no more.
//
// Only a report that is new, from the authoritative session and ahead of all
// others in it can be the reason, and only by a fix that is not a copy. (While
// that session is silent, another may be the reason in the second case; it takes
// over.) There are two cases:
//
//   - The newest fix of the vehicle is ahead of the log's time and the report's
//     is not, though it is recent. The newest fix was wrong and gives way at
//     once, unless the device's clock is known to be steadily ahead: then the
//     report is only late.
//   - Reports have been behind for RebaseAfter of stream time, their device time
//     went on about as fast, and it would take longer than RebaseAfter until it
//     catches up with the window. The device's clock was set back. A device that
//     uploads what it recorded earlier differs from it by its pace: its device
//     time jumps or runs backwards.

// behind is the evidence that a vehicle's device time was set back: since when
// its reports have been behind the window, and the device time then. Zero when
// there is none.
type behind struct {
	sinceMS, firstFixMS int64
}

// mustRebase returns whether a report that is about to be processed is the reason
// for a rebase. Fixes after limit are stamped ahead.
func (p *Partition) mustRebase(v *vehicle, at *standing, fixes []wire.Fix, limit int64, now present) bool {
	if !at.advances || at.recognised || v.newestMS == 0 {
		return false
	}
	newestMS, found := v.newestUnknown(fixes, limit)
	if !found {
		return false
	}
	if !p.isSetBack(v, at, newestMS, now) {
		return false
	}
	if !at.authoritative {
		p.takeOver(v, at, newestMS, now)
	}
	// The authority begins anew with the track.
	v.authorityFixMS = newestMS
	for i := range v.sessions {
		v.sessions[i].untilMS = newestMS
	}
	return true
}

// isSetBack returns whether the newest fix of a report, which is neither stamped
// ahead nor a copy, shows that the vehicle's newest fix has to give way.
func (p *Partition) isSetBack(v *vehicle, at *standing, newestMS int64, now present) bool {
	if !at.authoritative {
		return p.isSilent(&v.sessions[0]) && p.wasSetBack(v, newestMS)
	}
	tolerance := p.settings.AheadToleranceMS
	steady := v.clock.count >= enoughObservations && p.inLine(at.wasAheadMS, v.clock.aheadMS()) && newestMS >= v.lowWatermarkMS
	if v.newestMS > now.lowMS+tolerance && newestMS < v.newestMS && p.agrees(newestMS, now) && !steady {
		return true
	}
	return p.wasSetBack(v, newestMS)
}

// newestUnknown returns the newest of the fixes that is neither stamped ahead nor
// a copy, by its device time. Fixes are by device time.
func (v *vehicle) newestUnknown(fixes []wire.Fix, limit int64) (newestMS int64, found bool) {
	for i := len(fixes) - 1; i >= 0; i-- {
		ms := fixes[i].DeviceTimeMS
		if ms > limit {
			continue
		}
		if ms <= v.newestMS {
			if _, open := v.window.find(ms); open {
				continue
			}
		}
		if timeKnown, contentKnown := v.memory.find(&fixes[i]); !timeKnown && !contentKnown {
			return ms, true
		}
	}
	return 0, false
}

// wasSetBack weighs a report by its newest fix: one behind the window, again and
// again, at about the pace of stream time, is of a clock that was set back.
func (p *Partition) wasSetBack(v *vehicle, newestMS int64) bool {
	switch {
	case p.jump.pending():
		return false
	case newestMS >= v.lowWatermarkMS:
		v.behind = behind{}
		return false
	}
	if v.behind.sinceMS == 0 {
		v.behind = behind{sinceMS: p.streamMS, firstFixMS: newestMS}
		return false
	}
	// The paces may differ by a half, and by half of RebaseAfter because
	// reports bunch up on their way.
	elapsed := p.streamMS - v.behind.sinceMS
	advance := newestMS - v.behind.firstFixMS
	patience := p.settings.RebaseAfterMS
	if off := advance - elapsed; max(off, -off) > (elapsed+patience)/2 {
		v.behind = behind{sinceMS: p.streamMS, firstFixMS: newestMS}
		return false
	}
	return elapsed >= patience && v.lowWatermarkMS-newestMS > patience
}

// rebase closes what the vehicle has and starts it anew with the report. What
// was remembered stays recognised.
func (p *Partition) rebase(v *vehicle, report *wire.Report, out *wire.Track) {
	out.FinalPoints = p.closeAll(v, out.FinalPoints)
	v.restart()
	v.sessions.fenceAll(report)
	v.behind, v.clock, v.suspect = behind{}, deviceClock{}, suspect{}
	p.rebased = true
}

// restart gives up the vehicle's track: the next fix starts a new one, whatever
// its time.
func (v *vehicle) restart() {
	v.givenUpM += v.odometerM
	v.window.clear()
	v.track = track{window: v.window, liveValid: true}
}
