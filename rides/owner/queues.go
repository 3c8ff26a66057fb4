package owner

import (
	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// RideOf returns the ride that a vehicle is bound to, nil if none of the partition's.
func (o *Owner) RideOf(vehicleID string) *life.Ride { return o.state.Ride(o.bound[vehicleID]) }

// MayChange returns whether a change of a zone's queue may be appended: the owner
// leads, and its last one was read back.
func (o *Owner) MayChange(zone string) bool { return o.leading && !o.changing[zone] }

// Change appends who joins a zone's queue and who leaves it, which counts once it
// is read back. It returns false when the owner may not append it now.
func (o *Owner) Change(zone string, joined []string, left []*starlingv1.ZoneDeparture) bool {
	if !o.MayChange(zone) {
		return false
	}
	sequence := int64(1)
	if q := o.state.Queue(zone); q != nil {
		sequence = q.Sequence + 1
	}
	o.changing[zone] = true
	o.append(Append{Partition: o.cfg.Partition, Key: zone, Ride: &starlingv1.RideRecord{
		Epoch: o.epoch, Generation: o.state.Owner.Generation, RequestsBelow: o.RequestsBelow(),
		Record: &starlingv1.RideRecord_ZoneChange{ZoneChange: &starlingv1.ZoneChange{
			Zone: zone, Sequence: sequence, TimeMs: o.nowMS, Joined: joined, Left: left,
		}},
	}}, appended{zone: zone})
	return true
}
