package match

import (
	"fmt"
	"time"

	"github.com/starling-fleet/starling/rides/match/assign"
)

// batch assigns all requests that wait at the least cost, again in every round,
// and proposes what has stood the test: a request keeps waiting for something
// better for a share of the time that its vehicle would take.
//
// The cost of a pair is the expected time to the pickup; that of leaving a request
// for later is its price, which grows with its wait. So a vehicle that is farther
// away than a request's price is not proposed yet, and where vehicles are scarce
// those who have waited long come first.
type batch struct {
	settings Settings
	nextMS   int64

	problem assign.Problem
	solver  assign.Solver
	columns map[string]int
	names   []string
	found   []Candidate
	start   []int
}

func (b *batch) Match(nowMS int64, waiting []Request, search Search) []Proposal {
	every := b.settings.Window.Every.Milliseconds()
	// A clock that was set back does not stop it.
	if ahead := b.nextMS - nowMS; ahead > 0 && ahead <= every || len(waiting) == 0 {
		return nil
	}
	b.nextMS = nowMS + every
	b.gather(waiting, search)
	b.problem.Reset(len(b.names))
	for i := range waiting {
		wait := waited(&waiting[i], nowMS)
		reach := b.settings.Reach.after(wait)
		b.problem.Row(b.settings.Reach.Most.Seconds() + b.settings.Fairness*wait.Seconds())
		for _, c := range b.candidates(i) {
			if c.Travel <= reach {
				b.problem.Edge(b.columns[c.Vehicle], c.Travel.Seconds())
			}
		}
	}
	columnOf, _, err := b.solver.Solve(&b.problem)
	if err != nil {
		panic(fmt.Sprintf("an assignment with finite times was refused: %v", err)) // a fault of this package
	}
	var out []Proposal
	for i, column := range columnOf {
		if column == assign.None {
			continue
		}
		for _, c := range b.candidates(i) {
			if b.columns[c.Vehicle] == int(column) && b.ripe(&waiting[i], nowMS, c.Travel) {
				out = append(out, Proposal{i, c.Vehicle, c.Travel})
				break
			}
		}
	}
	return out
}

// gather searches for each request and numbers the vehicles that were found.
func (b *batch) gather(waiting []Request, search Search) {
	if b.columns == nil {
		b.columns = make(map[string]int)
	}
	clear(b.columns)
	b.names, b.found, b.start = b.names[:0], b.found[:0], b.start[:0]
	for i := range waiting {
		b.start = append(b.start, len(b.found))
		for _, c := range search(i, b.settings.Candidates) {
			if _, ok := b.columns[c.Vehicle]; !ok {
				b.columns[c.Vehicle] = len(b.names)
				b.names = append(b.names, c.Vehicle)
			}
			b.found = append(b.found, c)
		}
	}
	b.start = append(b.start, len(b.found))
}

func (b *batch) candidates(i int) []Candidate { return b.found[b.start[i]:b.start[i+1]] }

// ripe returns whether a request has waited long enough for its vehicle, or can't
// wait any longer.
func (b *batch) ripe(r *Request, nowMS int64, travel time.Duration) bool {
	w := b.settings.Window
	window := min(w.Most, time.Duration(w.Share*float64(travel)))
	return waited(r, nowMS) >= window
}
