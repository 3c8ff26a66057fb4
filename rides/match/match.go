// Package match decides which vehicle is proposed to which ride. It is pure: a
// matcher is given the requests that wait and a way to search for vehicles, and
// returns proposals; what becomes of them is its caller's affair. The rides role
// and the simulator use the same matchers.
package match

import (
	"cmp"
	"slices"
	"time"

	"github.com/starling-fleet/starling/internal/valid"
)

// Request is a ride that waits for a vehicle.
type Request struct {
	// ID names it for as long as it waits.
	ID string
	// RequestedMS is when it was requested and DeadlineMS when its search ends, in
	// milliseconds of one clock.
	RequestedMS, DeadlineMS int64
}

// Candidate is a vehicle that may take a request.
type Candidate struct {
	Vehicle string
	// Travel is the expected time to the pickup.
	Travel time.Duration
}

// Search returns vehicles that may take the request of an index into those that
// the matcher was given: at most so many, by expected time to the pickup, without
// those that it must not be proposed to. The slice is good until the next call.
type Search func(request, most int) []Candidate

// Proposal is a vehicle for a request. A matcher names each of them at most once
// in a round.
type Proposal struct {
	// Request is an index into the requests that the matcher was given.
	Request int
	Vehicle string
	Travel  time.Duration
}

// Matcher decides in rounds. It may remember requests by their ids; one that is
// not among those of a round is forgotten. It is not safe for concurrent use.
type Matcher interface {
	// Match returns what is to be proposed at a time, in milliseconds of the
	// requests' clock, which never goes back. The requests are in the order in
	// which they were made.
	Match(nowMS int64, waiting []Request, search Search) []Proposal
}

// Name is a matcher's name in settings.
type Name string

// The matchers.
const (
	// FIFO: the oldest request takes its best vehicle.
	FIFO Name = "fifo"
	// Balancing: when requests outnumber the vehicles, a vehicle takes its best
	// request; otherwise FIFO.
	Balancing Name = "balancing"
	// Batch: requests are gathered for a while and assigned at the least cost.
	Batch Name = "batch"
)

// Settings are those of all matchers.
type Settings struct {
	// Candidates is how many of the best vehicles are considered for a request.
	Candidates int `koanf:"-"`
	// Reach is how far away a vehicle may be, in expected time to the pickup, by
	// how long the request has waited. The greedy matchers use its Most only.
	Reach Reach `koanf:"reach"`
	// Fairness is by how much a unit of the wait outweighs a unit of the way to the
	// pickup when the batch matcher has to choose whom to serve.
	Fairness float64 `koanf:"fairness" help:"By how much a second of waiting outweighs a second of way to the pickup when the batch matcher has to choose whom to serve."`
	// Window is how long the batch matcher gathers.
	Window Window `koanf:"window"`
}

// Reach widens with the wait: a vehicle may be First away at once, and Widening
// more for each time unit of the wait, up to Most.
type Reach struct {
	First    time.Duration `koanf:"first" help:"How far away a vehicle may be at first, in expected time to the pickup; the batch matcher's."`
	Widening float64       `koanf:"widening" help:"By how much more for each second that the ride has waited."`
	Most     time.Duration `koanf:"most" help:"How far away a vehicle may be at most, in expected time to the pickup."`
}

// Window is how long a request waits for a better vehicle than the one that it
// would be given: a share of the time to the pickup, at most Most. So it adapts to
// supply: where a vehicle is near it is proposed at once.
type Window struct {
	// Every is the pause between two rounds.
	Every time.Duration `koanf:"every" help:"Pause between two rounds of the batch matcher."`
	Share float64       `koanf:"share" help:"How long a ride waits for a better vehicle than the one it would be given, as a share of the expected time to the pickup."`
	Most  time.Duration `koanf:"most" help:"How long it waits for a better vehicle at most."`
}

// DefaultSettings are those that docs/matching.md has the figures of.
func DefaultSettings() Settings {
	return Settings{
		Candidates: 16,
		Reach:      Reach{First: 10 * time.Minute, Widening: 4, Most: 30 * time.Minute},
		Fairness:   0.1,
		Window:     Window{Every: time.Second, Share: 0.1, Most: 15 * time.Second},
	}
}

// Validate returns all faults of s joined, each naming its field and rule, or
// nil.
func (s Settings) Validate() error {
	var faults valid.Faults
	valid.Between(&faults, "candidates", s.Candidates, 1, 256)
	valid.Between(&faults, "reach.first", s.Reach.First, time.Second, s.Reach.Most)
	valid.Between(&faults, "reach.widening", s.Reach.Widening, 0, 1000)
	valid.Between(&faults, "reach.most", s.Reach.Most, time.Second, 24*time.Hour)
	valid.Between(&faults, "fairness", s.Fairness, 0, 1000)
	valid.Between(&faults, "window.every", s.Window.Every, 0, s.Window.Most)
	valid.Between(&faults, "window.share", s.Window.Share, 0, 1)
	valid.Between(&faults, "window.most", s.Window.Most, 0, 15*time.Second)
	return faults.Err()
}

// New returns a matcher. It fails when a setting breaks its rule or the name is
// none of the three.
func New(name Name, s Settings) (Matcher, error) {
	var faults valid.Faults
	faults.Need(slices.Contains(Names(), name), "matcher", name, "fifo, balancing or batch")
	faults.Add(s.Validate())
	if err := faults.Err(); err != nil {
		return nil, err
	}
	switch name {
	case FIFO:
		return &fifo{s}, nil
	case Balancing:
		return &balancing{settings: s}, nil
	default:
		return &batch{settings: s}, nil
	}
}

// Names returns the names of all matchers.
func Names() []Name { return []Name{FIFO, Balancing, Batch} }

// waited is how long a request has waited.
func waited(r *Request, nowMS int64) time.Duration {
	return time.Duration(max(0, nowMS-r.RequestedMS)) * time.Millisecond
}

// after is how far away a vehicle may be of a request that has waited so long.
func (r Reach) after(wait time.Duration) time.Duration {
	return min(r.Most, r.First+time.Duration(r.Widening*float64(wait)))
}

// greedyCandidates is how many vehicles a greedy matcher looks at when the
// nearest are taken by older requests of the same round.
const greedyCandidates = 256

// fifo lets the oldest request take its best vehicle.
type fifo struct{ settings Settings }

func (f *fifo) Match(_ int64, waiting []Request, search Search) []Proposal {
	return inOrder(f.settings, waiting, search)
}

// inOrder gives each request the best vehicle that those before it have left.
func inOrder(s Settings, waiting []Request, search Search) []Proposal {
	var out []Proposal
	taken := make(map[string]bool)
	for i := range waiting {
		// Those before it can have taken as many as they are.
		best := search(i, min(len(taken)+1, greedyCandidates))
		for _, c := range best {
			if c.Travel > s.Reach.Most {
				break
			}
			if !taken[c.Vehicle] {
				taken[c.Vehicle] = true
				out = append(out, Proposal{i, c.Vehicle, c.Travel})
				break
			}
		}
	}
	return out
}

// balancing lets a vehicle take its best request when requests outnumber the
// vehicles.
type balancing struct {
	settings Settings
}

func (b *balancing) Match(_ int64, waiting []Request, search Search) []Proposal {
	most := min(len(waiting), greedyCandidates)
	vehicles := make(map[string]bool)
	var pairs []Proposal
	for i := range waiting {
		for _, c := range search(i, most) {
			if c.Travel > b.settings.Reach.Most {
				break
			}
			vehicles[c.Vehicle] = true
			pairs = append(pairs, Proposal{i, c.Vehicle, c.Travel})
		}
		if len(vehicles) >= len(waiting) {
			return inOrder(b.settings, waiting, search)
		}
	}
	// The best request of each vehicle: of all pairs the nearest first, so that a
	// request that two vehicles want goes to the nearer. Equal ones keep the order
	// of the requests.
	slices.SortStableFunc(pairs, func(x, y Proposal) int { return cmp.Compare(x.Travel, y.Travel) })
	served := make([]bool, len(waiting))
	var out []Proposal
	for _, p := range pairs {
		if vehicles[p.Vehicle] && !served[p.Request] {
			delete(vehicles, p.Vehicle)
			served[p.Request] = true
			out = append(out, p)
		}
	}
	return out
}
