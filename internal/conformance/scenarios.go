package conformance

import (
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Scenario is one way to be a difficult server.
type Scenario struct {
	Name, About string
	// Vehicles and Reports are the size of the feed.
	Vehicles, Reports int
	// A stream is acknowledged when Hold reports are unacknowledged, or nothing
	// has come for Quiet. A unary call is answered after a tenth of it.
	Hold  int
	Quiet time.Duration
	// Processes is how often the client is started, each time with a part of
	// the feed; 0 means once.
	Processes int
	// Stops says that the client has to give up.
	Stops bool
	// Silent says that the scenario lasts as long as the client waits for an
	// acknowledgement.
	Silent bool

	script func(rng *rand.Rand) Script
}

// Script says what happens when the n-th stream opens and when the n-th report
// comes, from 1. Each may be nil. Where reports that come by unary calls meet
// something else, Call says what.
type Script struct {
	Open, Report, Call func(n int) Move
}

// Scenarios returns all of them.
func Scenarios() []Scenario { return slices.Concat(acknowledging(), refusing(), stopping()) }

// acknowledging are about when and how reports are acknowledged.
func acknowledging() []Scenario {
	return []Scenario{
		{
			Name: "calm", About: "nothing is disturbed", Vehicles: 3, Reports: 60,
		},
		{
			Name: "late", About: "acknowledgements come late and for many reports at once", Vehicles: 2, Reports: 60, Hold: 25, Quiet: 300 * time.Millisecond,
		},
		{
			Name: "depth", About: "nothing is acknowledged before the client stops sending", Vehicles: 1, Reports: 150, Hold: 1000, Quiet: 250 * time.Millisecond,
		},
		{
			Name: "breaks", About: "streams break after each few reports, with any status, some after the report was stored", Vehicles: 2, Reports: 70,
			script: func(rng *rand.Rand) Script { return Script{Report: breaks(rng)} },
		},
		{
			Name: "cut", About: "connections are closed without a status", Vehicles: 2, Reports: 50,
			script: func(rng *rand.Rand) Script {
				return Script{Report: every(10, 5, func() Move { return Move{Cut: true, End: cutOff, Acknowledge: rng.IntN(2) == 0} })}
			},
		},
		{
			Name: "repeat", About: "acknowledgements are repeated", Vehicles: 2, Reports: 40,
			script: func(*rand.Rand) Script {
				return Script{Report: every(3, 100, func() Move { return Move{Noise: NoiseRepeat} })}
			},
		},
		{
			Name: "nowhere", About: "more reports are acknowledged than were sent, or fewer than before", Vehicles: 1, Reports: 150,
			script: func(*rand.Rand) Script {
				return Script{Report: once(map[int]Move{5: {Noise: NoiseBeyond}, 90: {Noise: NoiseBack}, 150: {Noise: NoiseBeyond}})}
			},
		},
	}
}

// refusing are about reports, fixes and streams that are refused.
func refusing() []Scenario {
	return []Scenario{
		{
			Name: "full", About: "the log is full or slow, the client too fast: RESOURCE_EXHAUSTED with a retry delay", Vehicles: 2, Reports: 30,
			script: func(*rand.Rand) Script {
				return Script{Report: once(map[int]Move{
					3:  {End: Busy(700 * time.Millisecond)},
					4:  {End: refuseWith(codes.ResourceExhausted, "LOG_SLOW", 900*time.Millisecond)},
					20: {End: refuseWith(codes.ResourceExhausted, "RATE_EXCEEDED", 600*time.Millisecond)},
				})}
			},
		},
		{
			Name: "unknown", About: "reports are stored but not confirmed: OUTCOME_UNKNOWN; the server's clock is in doubt", Vehicles: 2, Reports: 40,
			script: func(*rand.Rand) Script {
				return Script{Report: once(map[int]Move{
					4:  {End: refuseWith(codes.Unavailable, "OUTCOME_UNKNOWN", 300*time.Millisecond)},
					12: {End: refuseWith(codes.Unavailable, "CLOCK_IN_DOUBT", 400*time.Millisecond)},
					30: {End: refuseWith(codes.Unavailable, "OUTCOME_UNKNOWN", 200*time.Millisecond), Acknowledge: true},
				})}
			},
		},
		{
			Name: "refusals", About: "single fixes are refused", Vehicles: 2, Reports: 40,
			script: func(rng *rand.Rand) Script {
				return Script{Report: func(int) Move { return Move{Refuse: rng.IntN(3) == 0} }}
			},
		},
		{
			Name: "rejected", About: "whole reports are refused for good: INVALID_ARGUMENT", Vehicles: 2, Reports: 40, Hold: 4, Quiet: 100 * time.Millisecond,
			script: func(*rand.Rand) Script {
				return Script{Report: once(map[int]Move{2: {Reject: true}, 9: {Reject: true}, 25: {Reject: true}})}
			},
		},
	}
}

// stopping are about servers and clients that are gone.
func stopping() []Scenario {
	return []Scenario{
		{
			Name: "down", About: "five attempts in a row fail", Vehicles: 1, Reports: 12,
			script: func(*rand.Rand) Script {
				refuse := func(n int) Move {
					if n <= 5 {
						return Move{End: status.Error(codes.Unavailable, "nobody is here")}
					}
					return Move{}
				}
				return Script{Open: refuse, Call: refuse}
			},
		},
		{
			Name: "ended", About: "the server ends streams with OK before it has acknowledged everything", Vehicles: 2, Reports: 30, Hold: 3, Quiet: 100 * time.Millisecond,
			script: func(*rand.Rand) Script {
				return Script{Report: once(map[int]Move{5: {EndOK: true}, 17: {EndOK: true}})}
			},
		},
		{
			Name: "denied", About: "PERMISSION_DENIED: the client keeps its queue and stops", Vehicles: 1, Reports: 10, Stops: true,
			script: func(*rand.Rand) Script {
				return Script{Report: func(n int) Move {
					if n < 4 {
						return Move{}
					}
					return Move{End: Denied}
				}}
			},
		},
		{
			Name: "restart", About: "the client is started twice", Vehicles: 2, Reports: 20, Processes: 2,
		},
		{
			Name: "silence", About: "a stream is taken and never acknowledged", Vehicles: 1, Reports: 20, Silent: true,
			script: func(*rand.Rand) Script { return Script{Report: once(map[int]Move{6: {Mute: true}})} },
		},
		{
			Name: "storm", About: "all of it, drawn by the seed", Vehicles: 3, Reports: 120, Hold: 5, Quiet: 50 * time.Millisecond,
			script: storm,
		},
	}
}

// every makes a move of each n-th report, at most so many, and takes the others.
func every(n, most int, move func() Move) func(int) Move {
	return func(i int) Move {
		if i%n == 0 && i/n <= most {
			return move()
		}
		return Move{}
	}
}

// once makes moves of single reports, by their number.
func once(moves map[int]Move) func(int) Move { return func(n int) Move { return moves[n] } }

// breaks ends streams with every status after which the client comes back.
func breaks(rng *rand.Rand) func(int) Move {
	ends := []error{
		Unavailable,
		refuseWith(codes.Unavailable, "SHUTTING_DOWN", 0),
		status.Error(codes.Internal, "broken"),
		status.Error(codes.Unknown, "broken"),
		status.Error(codes.Aborted, "broken"),
		refuseWith(codes.DeadlineExceeded, "STREAM_IDLE", 0),
		status.Error(codes.DataLoss, "broken"),
	}
	rng.Shuffle(len(ends), func(i, j int) { ends[i], ends[j] = ends[j], ends[i] })
	broken := 0
	return every(4, 14, func() Move {
		broken++
		return Move{End: ends[broken%len(ends)], Acknowledge: broken%2 == 0}
	})
}

// storm draws what happens to each report.
func storm(rng *rand.Rand) Script {
	troubles := 0
	trouble := func(m Move) Move {
		if troubles++; troubles > 15 {
			return Move{}
		}
		return m
	}
	return Script{Report: func(int) Move {
		acknowledge := rng.IntN(2) == 0
		switch rng.IntN(40) {
		case 0, 1:
			return trouble(Move{End: Unavailable, Acknowledge: acknowledge})
		case 2:
			return trouble(Move{Cut: true, End: cutOff, Acknowledge: acknowledge})
		case 3:
			return trouble(Move{End: Busy(300 * time.Millisecond), Acknowledge: acknowledge})
		case 4:
			return trouble(Move{End: refuseWith(codes.Unavailable, "OUTCOME_UNKNOWN", 250*time.Millisecond), Acknowledge: acknowledge})
		case 5:
			return trouble(Move{Reject: true})
		case 6:
			return trouble(Move{EndOK: true, Acknowledge: acknowledge})
		case 7, 8:
			return Move{Noise: NoiseRepeat}
		case 9:
			return trouble(Move{Noise: NoiseBeyond})
		case 10, 11, 12:
			return Move{Refuse: true}
		}
		return Move{}
	}}
}
