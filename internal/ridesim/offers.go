package ridesim

import (
	"hash/fnv"
	"math/rand/v2"
	"slices"

	"github.com/starling-fleet/starling/rides/match"
)

// Offers is the rule of the known open systems, as in Namma Yatri's driver pool
// (github.com/nammayatri/nammayatri, its published configuration): a request is
// offered to the nearest drivers at once, a batch of BatchSize; who accepts first
// has it; when nobody has within BatchMS it is offered to the next batch. Here
// every driver accepts, after a time drawn evenly from AnswerMinMS to AnswerMaxMS,
// may have several offers and takes the first that is still open; and batches go
// on to the deadline, while there they end after three.
type Offers struct {
	BatchSize                         int
	BatchMS, AnswerMinMS, AnswerMaxMS int64
	// MostTravelS is how far away a driver may be that is asked, in seconds.
	MostTravelS float64
}

// DefaultOffers are batches of 5 drivers for 10 s within 7 km of way's straight
// line, the values of its configuration; answers take 2 to 8 s.
func DefaultOffers(cfg Config) Offers {
	const mostRadiusM = 7000
	return Offers{BatchSize: 5, BatchMS: 10_000, AnswerMinMS: 2000, AnswerMaxMS: 8000, MostTravelS: mostRadiusM * cfg.Detour / cfg.SpeedMPS}
}

// Rule returns the rule for a run.
func (o Offers) Rule() Rule {
	return Rule{"offer batches", func(seed int64) (match.Matcher, error) {
		return &offering{rule: o, seed: uint64(seed), open: make(map[string]*offered)}, nil
	}}
}

// offering is the matcher of one run.
type offering struct {
	rule Offers
	seed uint64
	open map[string]*offered
}

// offered is what has been offered for a request.
type offered struct {
	asked   []string
	nextMS  int64
	answers []answer // by time
}

// answer is an acceptance to come.
type answer struct {
	atMS    int64
	vehicle string
}

// Match implements match.Matcher.
func (o *offering) Match(nowMS int64, waiting []match.Request, search match.Search) []match.Proposal {
	open := make(map[string]*offered, len(waiting))
	var out []match.Proposal
	taken := make(map[string]bool)
	for i := range waiting {
		r := &waiting[i]
		state := o.open[r.ID]
		if state == nil {
			state = &offered{nextMS: nowMS}
		}
		open[r.ID] = state
		if nowMS >= state.nextMS {
			o.offer(r.ID, state, nowMS, search(i, o.rule.BatchSize+len(state.asked)))
		}
		for len(state.answers) > 0 && state.answers[0].atMS <= nowMS {
			vehicle := state.answers[0].vehicle
			state.answers = state.answers[1:]
			if !taken[vehicle] {
				taken[vehicle] = true
				out = append(out, match.Proposal{Request: i, Vehicle: vehicle})
				break
			}
		}
	}
	o.open = open
	return out
}

// offer asks the nearest drivers that have not been asked.
func (o *offering) offer(id string, s *offered, nowMS int64, nearest []match.Candidate) {
	asked := 0
	for _, c := range nearest {
		if asked == o.rule.BatchSize || c.Travel.Seconds() > o.rule.MostTravelS {
			break
		}
		if slices.Contains(s.asked, c.Vehicle) {
			continue
		}
		asked++
		s.asked = append(s.asked, c.Vehicle)
		s.answers = append(s.answers, answer{nowMS + o.rule.AnswerMinMS + o.draw(id, c.Vehicle), c.Vehicle})
	}
	slices.SortStableFunc(s.answers, func(a, b answer) int { return int(a.atMS - b.atMS) })
	if asked > 0 {
		s.nextMS = nowMS + o.rule.BatchMS
	}
}

// draw is how much longer than the least a driver thinks: the same in every run
// of a seed, whatever else is offered.
func (o *offering) draw(id, vehicle string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id + "/" + vehicle)) // never fails
	rng := rand.New(rand.NewPCG(o.seed, h.Sum64()))
	return rng.Int64N(o.rule.AnswerMaxMS - o.rule.AnswerMinMS + 1)
}
