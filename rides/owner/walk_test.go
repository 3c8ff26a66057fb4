package owner_test

import (
	"math/rand/v2"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/rides/owner"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/reserve"
)

const (
	walkSteps     = 500
	walkJudgeLive = 100 // after so many steps
)

// walkSpace is a world too large to be searched, drawn by a seed.
func walkSpace(r *rand.Rand) *scenario {
	s := scenario{
		rides: 5, vehicles: 5, owners: 3, partitions: 1 + r.IntN(2), mode: owner.Mode(r.IntN(2)),
		requestsLost: r.IntN(4) == 0, limits: reserve.Limits{MaxDecideAheadMS: 1, MaxRemembered: 1 + r.IntN(4)},
		budget: budget{
			takeovers: 40, crashes: int8(r.IntN(5)), proposals: 60, lost: int8(r.IntN(5)), unknown: int8(r.IntN(5)), repeated: int8(r.IntN(8)), unheard: int8(r.IntN(20)),
			streamTicks: 30, streamBack: int8(r.IntN(3)), clockTicks: int8(r.IntN(20)), cancels: int8(r.IntN(4)), acts: 40,
			reports: int8(r.IntN(10)), operators: int8(r.IntN(4)), raising: int8(r.IntN(3)),
		},
	}
	if r.IntN(3) == 0 {
		s.silenceMS = 4
	}
	if r.IntN(3) == 0 {
		s.deadlineMS = 8
	}
	if r.IntN(2) == 0 {
		s.maxPromisesBytes = 60
	}
	return s.withDefaults()
}

// walk goes a random way and returns it, and what is wrong at its end.
func (s *scenario) walk(r *rand.Rand) (trace []action, reached map[life.Phase]int, err error) {
	w, err := s.begin()
	if err != nil {
		return nil, nil, err
	}
	reached = make(map[life.Phase]int)
	var actions []action
	for step := 1; step <= walkSteps; step++ {
		actions = w.actions(actions[:0])
		x := actions[r.IntN(len(actions))]
		for tries := 0; tries < 6 && unlikely(x, r); tries++ {
			x = actions[r.IntN(len(actions))]
		}
		next, err := w.apply(x)
		if next == nil && err == nil {
			continue
		}
		trace = append(trace, x)
		if err == nil && step%walkJudgeLive == 0 {
			err = next.live()
		}
		if err != nil {
			return trace, reached, err
		}
		w = next
	}
	for p := range w.rides {
		w.rides[p].fold.Each(func(r *life.Ride) { reached[r.Phase]++ })
	}
	return trace, reached, nil
}

// unlikely returns whether another action is to be drawn: what makes progress
// comes more often than what goes wrong, and owners that keep taking over would
// do nothing else.
func unlikely(x action, r *rand.Rand) bool {
	switch x.kind {
	case readRide, readTrack, propose, act:
		return false
	case appendRide, appendPlace:
		return x.b != fine && r.IntN(10) > 0
	case takeOver:
		return r.IntN(60) > 0
	}
	return r.IntN(12) > 0
}

// TestWalks goes random ways through worlds of five rides, five vehicles and
// three owners.
func TestWalks(t *testing.T) {
	seeds := uint64(100)
	switch {
	case os.Getenv("STARLING_LONG") != "":
		seeds = 1_000
	case raceDetector:
		seeds = 12
	}
	reached := make(map[life.Phase]int)
	for seed := range seeds {
		s := walkSpace(rand.New(rand.NewPCG(seed, 1)))
		trace, phases, err := s.walk(rand.New(rand.NewPCG(seed, 2)))
		if err != nil {
			t.Fatalf("FOUND with seed %d: %s", seed, s.explain(found{err: err, trace: trace}))
		}
		for phase, n := range phases {
			reached[phase] += n
		}
	}
	t.Logf("at the ends of the walks: %v", reached)
	for _, phase := range []life.Phase{life.Searching, life.Assigned, life.OnBoard, life.Completed, life.Cancelled} {
		require.Positive(t, reached[phase], "no walk has come to %v", phase)
	}
}

// input draws values of small ranges from bytes.
type input struct{ rest []byte }

func (in *input) below(n int) int {
	if len(in.rest) == 0 {
		return 0
	}
	b := in.rest[0]
	in.rest = in.rest[1:]
	return int(b) % n
}

func (in *input) attempt() wire.Attempt {
	return wire.Attempt{Epoch: int64(in.below(3)), Generation: int64(in.below(8)), Counter: int64(in.below(4))}
}

func (in *input) view() wire.View {
	v := wire.View{VehicleID: vehicleName(in.below(3)), Availability: starlingv1.Availability(in.below(4)), SeenTimeMS: int64(in.below(9))}
	if in.below(2) == 0 {
		v.Reservation = &wire.Reservation{Ride: rideName(in.below(3)), Attempt: in.attempt(), Fence: wire.Fence{Epoch: int64(in.below(3)), Offset: int64(in.below(9))}}
	}
	return v
}

func (in *input) rideRecord() *starlingv1.RideRecord {
	r := &starlingv1.RideRecord{Epoch: int64(in.below(3)), Generation: int64(in.below(8)), RequestsBelow: int64(in.below(5))}
	switch in.below(4) {
	case 0:
		r.Record = &starlingv1.RideRecord_Takeover{Takeover: &starlingv1.RideTakeover{Nonce: uint64(in.below(6))}}
	case 1: // neither
	default:
		e := &starlingv1.RideEvent{Ride: rideName(in.below(3)), Sequence: int64(in.below(8)), Kind: starlingv1.RideEventKind(in.below(14)), ExpiresMs: int64(in.below(9))}
		if in.below(4) > 0 {
			e.VehicleId, e.Attempt, e.Fence = vehicleName(in.below(3)), in.attempt().ToProto(), wire.Fence{Epoch: 1, Offset: int64(in.below(9))}.ToProto()
		}
		r.Record = &starlingv1.RideRecord_Event{Event: e}
	}
	return r
}

func (in *input) request() *starlingv1.RideRequestRecord {
	r := &starlingv1.RideRequestRecord{Ride: rideName(in.below(3))}
	switch in.below(4) {
	case 0:
		r.Call = &starlingv1.RideRequestRecord_Order{Order: &starlingv1.RideOrder{Rider: "rider", DeadlineMs: int64(in.below(9))}}
	case 1:
		r.Call = &starlingv1.RideRequestRecord_Cancellation{Cancellation: &starlingv1.RideCancellation{Rider: "rider"}}
	case 2:
		act := &starlingv1.DriverAct{VehicleId: vehicleName(in.below(3)), Action: starlingv1.DriverAction(in.below(7))}
		if in.below(2) == 0 {
			act.Attempt = in.attempt().ToProto()
		}
		r.Call = &starlingv1.RideRequestRecord_DriverAct{DriverAct: act}
	}
	return r
}

// FuzzOwner gives an owner whatever its logs could hold, also what no owner or
// tracker writes: it doesn't panic, and it grows no further than its input.
func FuzzOwner(f *testing.F) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 3))
		b := make([]byte, 400)
		for i := range b {
			b[i] = byte(r.IntN(256))
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := &input{b}
		s := scenario{rides: 3, vehicles: 3, mode: owner.Mode(in.below(2)), silenceMS: 3, maxPromisesBytes: 1 + in.below(80)}.withDefaults()
		o := owner.New(s.config(0), 1, life.State{})
		appended, inputs := 0, 0
		for offset, requests, source := int64(0), int64(0), int64(0); len(in.rest) > 0; inputs++ {
			switch in.below(8) {
			case 0:
				o.TakeOver(uint64(1+in.below(5)), "")
			case 1, 2:
				o.ReadRide(offset, in.rideRecord())
				offset++
			case 3:
				o.ReadRequest(requests, 0, in.request())
				requests++
			case 4:
				track := wire.Track{Epoch: int64(in.below(3)), SourceOffset: source, ClockMS: int64(in.below(9)), HasLive: true, Live: in.view()}
				if in.below(2) == 0 {
					track.Fired = []wire.Fired{{VehicleID: vehicleName(in.below(3)), HasLive: true, Live: in.view(), Forgotten: in.below(2) == 0}}
				}
				source += int64(in.below(3))
				o.ReadTrack(0, &track)
			case 5:
				o.Completed(uint64(in.below(40)), int64(in.below(9)), in.below(2) == 0, in.below(2) == 0)
			case 6:
				o.Tick(int64(in.below(12)))
			case 7:
				o.Propose(rideName(in.below(3)), vehicleName(in.below(3)))
			}
			out, _ := o.Take()
			appended += len(out)
		}
		require.LessOrEqual(t, appended, 20*inputs)
		o.Encode(&template{})
		_ = o.Searching()
	})
}
