package check_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/starling-fleet/starling/loadtest/ridedrill/check"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

const (
	searching = starlingv1.RidePhase_RIDE_PHASE_SEARCHING
	comes     = starlingv1.RidePhase_RIDE_PHASE_ASSIGNED
	onBoard   = starlingv1.RidePhase_RIDE_PHASE_ON_BOARD
	done      = starlingv1.RidePhase_RIDE_PHASE_COMPLETED
)

// stands is ride a of the good log after its event of a number.
func stands(sequence int64) *starlingv1.Ride {
	r := &starlingv1.Ride{Name: "rides/a", Sequence: sequence, Epoch: 1, Phase: []starlingv1.RidePhase{searching, comes, onBoard, done}[sequence-1]}
	if sequence == 2 || sequence == 3 {
		r.Vehicle, r.Attempt = "vehicles/v", att(1, 0, 1)
	}
	return r
}

// sent is the event of a number of ride a as it reaches a client.
func sent(l *ledger, sequence int64) *starlingv1.SubscribeRideEventsResponse {
	return &starlingv1.SubscribeRideEventsResponse{Recovered: true, Event: l.event(0, int(sequence)), Ride: stands(sequence)}
}

func snapshot(sequence int64) *starlingv1.SubscribeRideEventsResponse {
	return &starlingv1.SubscribeRideEventsResponse{Ride: stands(sequence)}
}

func position(vehicle string, ms int64) *starlingv1.SubscribeRideEventsResponse {
	return &starlingv1.SubscribeRideEventsResponse{Recovered: true, VehiclePosition: &starlingv1.RideVehiclePosition{
		Vehicle: "vehicles/" + vehicle, DeviceTime: timestamppb.New(time.UnixMilli(ms)),
	}}
}

// connected is a connection whose messages come at 100 ms.
func connected(after, epoch int64, messages ...*starlingv1.SubscribeRideEventsResponse) check.Connection {
	c := check.Connection{OpenedMS: 50, After: after, Epoch: epoch}
	for _, m := range messages {
		c.Sent = append(c.Sent, check.SentOf(100, m))
	}
	return c
}

func untrue(c check.Connection) check.Connection {
	c.Untrue = true
	return c
}

func ended(c check.Connection) check.Connection {
	c.Ended = true
	return c
}

func disowned(c check.Connection) check.Connection {
	c.NotFound = true
	return c
}

// followedBy judges the good log with a follower of ride a.
func followedBy(whole bool, live func(time.Duration), connections func(l *ledger) []check.Connection) *check.Checker {
	l := good()
	c := l.judged()
	c.Live = live
	c.Followed("a", connections(l), whole)
	return c
}

func TestAFollowerOverManyConnections(t *testing.T) {
	var live []time.Duration
	c := followedBy(true, func(d time.Duration) { live = append(live, d) }, func(l *ledger) []check.Connection {
		return []check.Connection{
			disowned(connected(0, 0)), // it was not there yet
			connected(0, 0, sent(l, 1)),
			connected(1, 1),
			connected(1, 1, sent(l, 2), position("v", 10), position("v", 10), position("v", 20)),
			untrue(connected(3, 2, snapshot(2))),
			untrue(connected(1_000_002, 1, snapshot(2), sent(l, 3))),
			ended(connected(3, 1, sent(l, 4))),
			ended(connected(4, 1)),
		}
	})
	require.True(t, c.Findings.None(), "%s", &c.Findings)
	require.Equal(t, [...]int64{1, 8, 2, 2, 3}, [...]int64{c.Totals.Followed, c.Totals.Connections, c.Totals.Resumed, c.Totals.Snapshots, c.Totals.Positions})
	require.Equal(t, []time.Duration{35 * time.Millisecond, 25 * time.Millisecond}, live, "of the third and the fourth event, whose stamps are 65 and 75 ms")
}

func TestEachFaultOfAFollowerIsFound(t *testing.T) {
	for name, f := range map[string]struct {
		kind        string
		unfinished  bool
		connections func(l *ledger) []check.Connection
	}{
		"an event is left out": {kind: check.AnnouncedOtherwise, connections: func(l *ledger) []check.Connection { return []check.Connection{connected(0, 0, sent(l, 1), sent(l, 3))} }},
		"an event comes twice": {kind: check.AnnouncedOtherwise, connections: func(l *ledger) []check.Connection { return []check.Connection{connected(0, 0, sent(l, 1), sent(l, 1))} }},
		"two events change places": {kind: check.AnnouncedOtherwise, connections: func(l *ledger) []check.Connection {
			return []check.Connection{connected(0, 0, sent(l, 1), sent(l, 3), sent(l, 2))}
		}},
		"a resumption skips an event": {kind: check.AnnouncedOtherwise, connections: func(l *ledger) []check.Connection {
			return []check.Connection{connected(0, 0, sent(l, 1)), connected(1, 1, sent(l, 3))}
		}},
		"a resumption repeats an event": {kind: check.AnnouncedOtherwise, connections: func(l *ledger) []check.Connection {
			return []check.Connection{connected(0, 0, sent(l, 1)), connected(1, 1, sent(l, 1))}
		}},
		"the follower resumes elsewhere": {kind: check.AnnouncedOtherwise, connections: func(l *ledger) []check.Connection {
			return []check.Connection{connected(0, 0, sent(l, 1)), connected(2, 1, sent(l, 3))}
		}},
		"another event than the log's": {kind: check.AnnouncedOtherwise, connections: func(l *ledger) []check.Connection {
			m := sent(l, 1)
			m.Event = l.event(0, 2)
			m.Event.Sequence = 1
			return []check.Connection{connected(0, 0, m)}
		}},
		"the ride stands otherwise": {kind: check.AnnouncedOtherwise, connections: func(l *ledger) []check.Connection {
			m := sent(l, 1)
			m.Ride.Phase = comes
			return []check.Connection{connected(0, 0, m)}
		}},
		"the ride has another vehicle": {kind: check.AnnouncedOtherwise, connections: func(l *ledger) []check.Connection {
			m := sent(l, 2)
			m.Ride.Vehicle = "vehicles/w"
			return []check.Connection{connected(0, 0, sent(l, 1), m)}
		}},
		"an event beyond the last": {kind: check.AnnouncedOtherwise, connections: func(l *ledger) []check.Connection {
			m := sent(l, 4)
			m.Event.Sequence, m.Ride.Sequence = 5, 5
			return []check.Connection{untrue(connected(4, 1, m))}
		}},
		"a snapshot stands otherwise": {kind: check.AnnouncedOtherwise, connections: func(*ledger) []check.Connection {
			m := snapshot(2)
			m.Ride.Phase = done
			return []check.Connection{untrue(connected(3, 9, m))}
		}},
		"a loss from the beginning": {kind: check.LostWithoutCause, connections: func(*ledger) []check.Connection { return []check.Connection{connected(0, 0, snapshot(2))} }},
		"a loss in the middle": {kind: check.LostWithoutCause, connections: func(l *ledger) []check.Connection {
			return []check.Connection{connected(0, 0, sent(l, 1), snapshot(3))}
		}},
		"a loss in the same epoch": {kind: check.LostWithoutCause, connections: func(l *ledger) []check.Connection {
			return []check.Connection{connected(0, 0, sent(l, 1)), connected(1, 1, snapshot(3))}
		}},
		"a ride that is disowned": {kind: check.Disowned, connections: func(l *ledger) []check.Connection {
			return []check.Connection{connected(0, 0, sent(l, 1)), disowned(connected(1, 1))}
		}},
		"a position of another vehicle": {kind: check.PositionOff, connections: func(l *ledger) []check.Connection {
			return []check.Connection{connected(0, 0, sent(l, 1), sent(l, 2), position("w", 10))}
		}},
		"a position before the vehicle": {kind: check.PositionOff, connections: func(l *ledger) []check.Connection {
			return []check.Connection{connected(0, 0, sent(l, 1), position("v", 10))}
		}},
		"a position older than the last": {kind: check.PositionOff, connections: func(l *ledger) []check.Connection {
			return []check.Connection{connected(0, 0, sent(l, 1), sent(l, 2), position("v", 10), position("v", 9))}
		}},
		"it ends before the ride": {kind: check.Unheard, connections: func(l *ledger) []check.Connection { return []check.Connection{ended(connected(0, 0, sent(l, 1)))} }},
		"the last event never comes": {kind: check.Unheard, unfinished: true, connections: func(l *ledger) []check.Connection {
			return []check.Connection{connected(0, 0, sent(l, 1), sent(l, 2), sent(l, 3))}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := followedBy(!f.unfinished, nil, f.connections)
			require.Positive(t, c.Findings.Count(f.kind), "%q among:\n%s", f.kind, &c.Findings)
		})
	}
	c := good().judged()
	c.Followed("nowhere", []check.Connection{connected(0, 0)}, true)
	require.Positive(t, c.Findings.Count(check.AnnouncedOtherwise))
}
