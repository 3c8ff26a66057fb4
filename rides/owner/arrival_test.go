package owner_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/rides/owner"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// pickup is driven to by one owner's only ride.
type pickup struct {
	t        *testing.T
	owner    *owner.Owner
	offset   int64 // of the next record of rides
	source   int64 // of the next record of locations
	events   []*starlingv1.RideEvent
	reserved *wire.Reservation
}

// settle appends what the owner wants until it wants nothing.
func (p *pickup) settle() {
	for {
		appends, events := p.owner.Take()
		p.events = append(p.events, events...)
		if len(appends) == 0 {
			return
		}
		for _, a := range appends {
			if a.Ride != nil {
				p.owner.Completed(a.Token, p.offset, false, false)
				p.owner.ReadRide(p.offset, a.Ride)
				p.offset++
				continue
			}
			p.source++
			p.owner.Completed(a.Token, p.source, false, false)
			if a.Location.Kind == wire.KindProposal {
				q := a.Location.Proposal
				p.reserved = &wire.Reservation{Ride: q.Ride, Attempt: q.Attempt, Fence: wire.Fence{Epoch: 1, Offset: p.source}}
			}
			p.see(0, 46)
		}
	}
}

// see has the tracker publish the vehicle at a latitude.
func (p *pickup) see(deviceMS int64, latDeg float64) {
	view := wire.View{VehicleID: "v", DeviceTimeMS: deviceMS, Reservation: p.reserved}
	view.LatDeg, view.LonDeg = latDeg, 9
	p.owner.ReadTrack(0, &wire.Track{Epoch: 1, SourceOffset: p.source, HasLive: true, Live: view})
}

func (p *pickup) at(deviceMS int64, metres float64) {
	p.source++
	p.see(deviceMS, 45+metres/111_195)
	p.settle()
}

// assigned returns an owner whose ride has its vehicle.
func assigned(t *testing.T) *pickup {
	t.Helper()
	cfg := owner.Config{
		Partitions: 1, DecideMS: 1000, SearchMS: 1_000_000, SilenceMS: 1_000_000, MaxPromisesBytes: 1 << 20,
		ArrivingM: 300, ArrivedM: 40, ArrivedMS: 5000,
		PartitionOf: func(string) int32 { return 0 }, OwnsRide: func(string) bool { return true }, Acceptable: func(string, int64) bool { return true },
	}
	p := &pickup{t: t, owner: owner.New(cfg, 1, life.State{})}
	p.owner.TakeOver(1, "")
	p.settle()
	p.see(0, 46)
	p.owner.ReadRequest(0, 0, &starlingv1.RideRequestRecord{Ride: "r", Call: &starlingv1.RideRequestRecord_Order{
		Order: &starlingv1.RideOrder{Rider: "ann", PickupLatitude: 45, PickupLongitude: 9},
	}})
	p.settle()
	require.True(t, p.owner.Propose("r", "v"))
	p.settle()
	require.Equal(t, []string{"REQUESTED", "ASSIGNED"}, p.kinds())
	return p
}

func (p *pickup) kinds() []string {
	var kinds []string
	for _, e := range p.events {
		kinds = append(kinds, e.GetKind().String()[len("RIDE_EVENT_KIND_"):])
	}
	return kinds
}

func TestArrivalIsSeenOnTheTrack(t *testing.T) {
	type fix struct {
		second int64
		metres float64
	}
	for _, c := range []struct {
		name  string
		fixes []fix
		want  []string
	}{
		{"far away", []fix{{1, 5000}, {100, 301}}, nil},
		{"comes near", []fix{{1, 5000}, {2, 299}, {3, 200}, {60, 41}}, []string{"ARRIVING"}},
		{"comes and stays", []fix{{1, 299}, {2, 39}, {4, 10}, {7, 5}}, []string{"ARRIVING", "ARRIVED"}},
		{"passes by", []fix{{1, 299}, {2, 39}, {5, 81}, {8, 39}, {12, 39}}, []string{"ARRIVING"}},
		{"stays with a fix that is off", []fix{{1, 299}, {2, 39}, {4, 79}, {7, 60}}, []string{"ARRIVING", "ARRIVED"}},
		{"drives off and is not un-arriving", []fix{{1, 299}, {2, 5000}, {3, 299}}, []string{"ARRIVING"}},
		{"is at the pickup at once", []fix{{1, 1}, {6, 1}}, []string{"ARRIVING", "ARRIVED"}},
		{"nothing behind the arrival", []fix{{1, 1}, {6, 1}, {7, 500}, {8, 1}, {20, 1}}, []string{"ARRIVING", "ARRIVED"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := assigned(t)
			for _, f := range c.fixes {
				p.at(f.second*1000, f.metres)
			}
			require.Equal(t, append([]string{"REQUESTED", "ASSIGNED"}, c.want...), p.kinds())
		})
	}
}

func TestAVehicleThatIsNotHeldDoesNotArrive(t *testing.T) {
	p := assigned(t)
	other := *p.reserved
	other.Attempt.Counter++
	p.reserved = &other
	p.source-- // not later than the grant: it proves nothing
	p.at(1000, 1)
	require.NotContains(t, p.kinds(), "ARRIVING")
}
