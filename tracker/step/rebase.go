package step

import "github.com/starling-fleet/starling/schemas/wire"

// A device's clock may jump. Once it has jumped ahead, every fix of the right
// time is behind the window; after it was set back, every new fix is. Both
// would freeze the vehicle until its device time catches up, so the vehicle is
// rebased: its window closes, the filter forgets, and the report that was the
// reason starts a new track. Reports from before it then count no more.
//
// Only a report that is new, from the newest session and ahead of all others in
// it can be the reason, and only if all its fixes lie behind the window. There
// are two cases:
//
//   - The newest fix is further ahead of stream time than MaxAhead
//     and the report is not. The newest fix was wrong, and it gives way at once.
//   - Reports have been behind for RebaseAfter of stream time, their device time
//     went on about as fast, and it would take longer
//     than RebaseAfter until it catches up with the window. The device's clock
//     was set back. A device that uploads what it recorded earlier differs from
//     it by its pace: its device time jumps or runs backwards.

// behind is the evidence that a vehicle's device time was set back: since when
// its reports have been behind the window, and the device time then. Zero when
// there is none.
type behind struct {
	sinceMS, firstFixMS int64
}

// mustRebase returns whether a report that is about to be processed is the reason
// for a rebase; newestMS is the device time of its newest fix.
func (p *Partition) mustRebase(v *vehicle, at standing, newestMS int64) bool {
	if !at.newest || !at.advances || at.recognised || v.newestMS == 0 {
		return false
	}
	if newestMS >= v.lowWatermarkMS {
		v.behind = behind{}
		return false
	}
	latest := p.streamMS + p.settings.MaxAheadMS
	if v.newestMS > latest && newestMS <= latest {
		return true
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

// rebase closes what the vehicle has and starts it anew with the report.
func (p *Partition) rebase(v *vehicle, report *wire.Report, out *wire.Track) {
	out.FinalPoints = p.restart(&v.track, out.FinalPoints)
	v.sessions.fenceAll(report)
	v.behind = behind{}
	p.rebased = true
}
