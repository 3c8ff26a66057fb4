package ridesim

import (
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/starling-fleet/starling/rides/match"
)

// Rule makes the matcher of a run. Its seed is the run's.
type Rule struct {
	Name string
	New  func(seed int64) (match.Matcher, error)
}

// Result is what came of a run.
type Result struct {
	Rule string `json:"rule"`
	// Requests were made, Served of them were picked up.
	Requests int `json:"requests"`
	Served   int `json:"served"`
	// WaitS is the time from request to pickup in seconds; a rider who got no
	// vehicle waited to the deadline.
	WaitS Spread `json:"wait_s"`
	// PickupM is how far vehicles drove to pickups, in metres of way.
	PickupM Spread `json:"pickup_m"`
	// OnBoardShare and EmptyShare are the parts of the vehicles' time with a rider
	// and on the way to one, from the time at which a tenth of the requests were
	// made to that of nine tenths.
	OnBoardShare float64 `json:"on_board_share"`
	EmptyShare   float64 `json:"empty_share"`
	// Refused are proposals of vehicles that had just been taken.
	Refused int `json:"refused"`
}

// ServedShare is the part of the requests that were served.
func (r *Result) ServedShare() float64 { return float64(r.Served) / float64(max(1, r.Requests)) }

// Spread are the mean and percentiles.
type Spread struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
}

// spread sorts values.
func spread(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	slices.Sort(values)
	var sum float64
	for _, v := range values {
		sum += v
	}
	at := func(q float64) float64 { return values[min(len(values)-1, int(q*float64(len(values))))] }
	return Spread{sum / float64(len(values)), at(0.5), at(0.95), at(0.99)}
}

// Run drives a fleet through a demand, which must be sorted by time. It fails when
// cfg breaks a rule or nothing of the demand is drawn.
func Run(cfg Config, demand []Trip, rule Rule) (*Result, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("simulation: %w", err)
	}
	matcher, err := rule.New(cfg.Seed)
	if err != nil {
		return nil, fmt.Errorf("simulation: %w", err)
	}
	rng := rand.New(rand.NewPCG(uint64(cfg.Seed), 1))
	trips := subset(demand, cfg.Share, rng)
	if len(trips) == 0 {
		return nil, errors.New("simulation: no trip of the demand was drawn")
	}
	names := make([]string, cfg.Vehicles)
	for v := range names {
		names[v] = "v" + strconv.Itoa(v)
	}
	w := &world{cfg: cfg, trips: trips, matcher: matcher, idle: newIdle(names), byName: make(map[string]int32), result: &Result{Rule: rule.Name}}
	for v, name := range names {
		w.byName[name] = int32(v)
		w.idle.add(int32(v), demand[rng.IntN(len(demand))].Pickup)
	}
	w.run()
	return w.result, nil
}

// world is a run in progress.
type world struct {
	cfg     Config
	trips   []Trip
	matcher match.Matcher
	nowMS   int64

	idle    *idle
	byName  map[string]int32
	driving driving
	next    int             // the next trip
	waiting []match.Request // in the order of their making
	wanted  []int32         // the trip of each that waits
	found   []match.Candidate

	waitS, pickupM []float64
	// fromMS to toMS is when it counts what vehicles do.
	fromMS, toMS       int64
	onBoardMS, emptyMS float64
	result             *Result
}

func (w *world) run() {
	w.fromMS, w.toMS = w.trips[len(w.trips)/10].RequestedMS, w.trips[len(w.trips)*9/10].RequestedMS
	for w.nowMS = w.trips[0].RequestedMS; w.next < len(w.trips) || len(w.waiting) > 0; w.nowMS += w.cfg.Step.Milliseconds() {
		w.arrive()
		w.expire()
		w.match()
	}
	r := w.result
	r.Requests, r.Served = len(w.trips), len(w.pickupM)
	r.WaitS, r.PickupM = spread(w.waitS), spread(w.pickupM)
	total := float64(w.toMS-w.fromMS+1) * float64(w.cfg.Vehicles)
	r.OnBoardShare, r.EmptyShare = w.onBoardMS/total, w.emptyMS/total
}

// arrive lets vehicles end their rides and riders make their requests.
func (w *world) arrive() {
	for len(w.driving) > 0 && w.driving[0].untilMS <= w.nowMS {
		d := heap.Pop(&w.driving).(drive)
		w.idle.add(d.vehicle, d.to)
	}
	for ; w.next < len(w.trips) && w.trips[w.next].RequestedMS <= w.nowMS; w.next++ {
		at := w.trips[w.next].RequestedMS
		w.waiting = append(w.waiting, match.Request{ID: strconv.Itoa(w.next), RequestedMS: at, DeadlineMS: at + w.cfg.Search.Milliseconds()})
		w.wanted = append(w.wanted, int32(w.next))
	}
}

// expire ends the search of those whose deadline has come.
func (w *world) expire() {
	w.drop(func(i int) bool {
		over := w.waiting[i].DeadlineMS <= w.nowMS
		if over {
			w.waitS = append(w.waitS, w.cfg.Search.Seconds())
		}
		return over
	})
}

// drop removes those who wait no more.
func (w *world) drop(gone func(i int) bool) {
	kept := 0
	for i := range w.waiting {
		if !gone(i) {
			w.waiting[kept], w.wanted[kept] = w.waiting[i], w.wanted[i]
			kept++
		}
	}
	w.waiting, w.wanted = w.waiting[:kept], w.wanted[:kept]
}

func (w *world) match() {
	if len(w.waiting) == 0 {
		return
	}
	served := make(map[int]bool)
	for _, p := range w.matcher.Match(w.nowMS, w.waiting, w.search) {
		v := w.byName[p.Vehicle]
		if !w.idle.has(v) {
			w.result.Refused++
			continue
		}
		served[p.Request] = true
		w.assign(v, &w.trips[w.wanted[p.Request]])
	}
	if len(served) > 0 {
		w.drop(func(i int) bool { return served[i] })
	}
}

func (w *world) search(request, most int) []match.Candidate {
	w.found = w.found[:0]
	for _, n := range w.idle.nearest(w.trips[w.wanted[request]].Pickup, most) {
		w.found = append(w.found, match.Candidate{Vehicle: w.idle.names[n.vehicle], Travel: w.travel(n.distanceM)})
	}
	return w.found
}

// travel is how long a straight line takes.
func (w *world) travel(distanceM float64) time.Duration {
	return time.Duration(distanceM * w.cfg.Detour / w.cfg.SpeedMPS * float64(time.Second))
}

// assign sends a vehicle to the pickup and then to the drop-off.
func (w *world) assign(v int32, t *Trip) {
	toPickupM := w.idle.at[v].distance(t.Pickup)
	pickupMS := w.travel(toPickupM).Milliseconds()
	endMS := w.nowMS + pickupMS + w.travel(t.Pickup.distance(t.Dropoff)).Milliseconds()
	w.idle.remove(v)
	heap.Push(&w.driving, drive{endMS, v, t.Dropoff})
	w.pickupM = append(w.pickupM, toPickupM*w.cfg.Detour)
	w.waitS = append(w.waitS, float64(w.nowMS+pickupMS-t.RequestedMS)/1000)
	w.emptyMS += w.counted(w.nowMS, w.nowMS+pickupMS)
	w.onBoardMS += w.counted(w.nowMS+pickupMS, endMS)
}

// counted is the part of a stretch of time in which it counts what vehicles do,
// in milliseconds.
func (w *world) counted(fromMS, toMS int64) float64 {
	return float64(max(0, min(toMS, w.toMS)-max(fromMS, w.fromMS)))
}

// drive is a vehicle on its way until it is idle at a place.
type drive struct {
	untilMS int64
	vehicle int32
	to      Place
}

// driving is a heap by time, then by vehicle.
type driving []drive

func (d driving) Len() int { return len(d) }
func (d driving) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(d[i].untilMS, d[j].untilMS), cmp.Compare(d[i].vehicle, d[j].vehicle)) < 0
}
func (d driving) Swap(i, j int) { d[i], d[j] = d[j], d[i] }

// Push implements heap.Interface.
func (d *driving) Push(x any) { *d = append(*d, x.(drive)) }

// Pop implements heap.Interface.
func (d *driving) Pop() any {
	old := *d
	last := old[len(old)-1]
	*d = old[:len(old)-1]
	return last
}
