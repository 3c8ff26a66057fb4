package step

import (
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/reserve"
)

// held returns the vehicle's reservation, nil if it has none.
func (v *vehicle) held() *wire.Reservation {
	if v.promises == nil {
		return nil
	}
	return v.promises.Held()
}

// stepPromise takes a record that asks for a vehicle or lets it go. A vehicle
// that is not known is asked for in vain, and nothing of it is remembered: who
// asks finds out because it has no reservation.
func (p *Partition) stepPromise(key []byte, t *wire.Track) {
	v, known := p.vehicles[string(key)]
	if !known {
		return
	}
	var promises reserve.Vehicle // a copy: what v points to never changes
	if v.promises != nil {
		promises = *v.promises
	}
	facts := p.factsOf(v)
	switch p.location.Kind {
	case wire.KindProposal:
		promises.Propose(&p.location.Proposal, facts, p.settings.reserveLimits())
	default:
		promises.Release(&p.location.Release, facts, p.settings.reserveLimits())
	}
	p.keepPromises(v, promises)
	t.HasLive = true
	p.view(v, &t.Live)
	v.publishedMS = p.streamMS
	p.timers.schedule(v, p.timerMS(v))
	p.erase(v, t)
}

// keepPromises makes promises those of v.
func (p *Partition) keepPromises(v *vehicle, promises reserve.Vehicle) {
	v.promises = &promises
	if promises.Idle() {
		v.promises = nil
	}
	p.markChanged(v)
}

// factsOf is what a decision about v reads.
func (p *Partition) factsOf(v *vehicle) reserve.Facts {
	return reserve.Facts{
		StreamMS: p.streamMS, Epoch: p.epoch, Offset: p.offset,
		Ready:        p.assertions.Ready(p.settings.Partitions),
		Dispatchable: p.canBeAsked(v),
		// The report that brought the newest fix is at most as old as the last
		// report, and the fix as old as its device's corrected time has it: a
		// backlog makes old fixes look new by the one, a wrong clock by the other.
		AgeMS: max(p.streamMS-v.seenMS, p.streamMS-v.correctedMS()),
	}
}

// canBeAsked returns whether v can be offered a ride but for a reservation.
func (p *Partition) canBeAsked(v *vehicle) bool {
	return v.availability == starlingv1.Availability_AVAILABILITY_FREE && !p.conflicting(v) && p.isFresh(v, p.streamMS)
}

// stepReasserted takes what a partition of `rides` restates. Its vehicles are
// published by their timers, which expire at once: they may be many.
func (p *Partition) stepReasserted() {
	for _, promise := range p.assertions.Add(&p.location.Reasserted, p.epoch, p.settings.Partitions) {
		if !limits.ValidVehicleID(promise.VehicleID) {
			continue
		}
		v, known := p.vehicles[promise.VehicleID]
		if !known {
			v = newVehicle(promise.VehicleID)
			v.seenMS = p.streamMS
			p.vehicles[v.id] = v
		}
		var promises reserve.Vehicle
		if v.promises != nil {
			promises = *v.promises
		}
		promises.Reassert(&promise)
		p.keepPromises(v, promises)
		v.publishedMS = p.streamMS - p.settings.RepeatIntervalMS
		p.timers.schedule(v, p.timerMS(v))
	}
}

// reserveLimits are the settings of decisions about reservations.
func (s *Settings) reserveLimits() reserve.Limits {
	return reserve.Limits{MaxDecideAheadMS: s.MaxDecideAheadMS, MaxRemembered: s.RememberAttempts}
}
