package owner_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/rides/owner"
	"github.com/starling-fleet/starling/tracker/reserve"
)

// scenario is one space that is searched.
type scenario struct {
	name                                string
	rides, vehicles, owners, partitions int
	mode                                owner.Mode
	deadlineMS, silenceMS               int64
	// maxPromisesBytes bounds a part of a restatement.
	maxPromisesBytes int
	// requestsLost is true when a raised epoch finds no request left.
	requestsLost bool
	budget       budget
	limits       reserve.Limits
	// leaders are the owners that have taken over, and bound is how many rides are
	// bound, before the search begins.
	leaders []int
	bound   int
	// liveEvery is of how many states one is judged by how it goes on without
	// faults.
	liveEvery int
	// states is how many are reached, 0 when it does not matter.
	states int
}

func (s *scenario) config(partition int32) owner.Config {
	return owner.Config{
		Partition: partition, Partitions: int32(s.partitions), Mode: s.mode,
		OfferMS: 1, SilenceMS: s.silenceMS, MaxPromisesBytes: s.maxPromisesBytes,
		PartitionOf: func(string) int32 { return 0 },
		OwnsRide:    func(name string) bool { return indexOf(name)%s.partitions == int(partition) },
		Acceptable:  func(string, int64) bool { return true },
	}
}

const never = int64(1) << 40

func (s scenario) withDefaults() *scenario {
	s.partitions = max(1, s.partitions)
	s.owners = max(s.owners, s.partitions)
	if s.deadlineMS == 0 {
		s.deadlineMS = never
	}
	if s.silenceMS == 0 {
		s.silenceMS = never
	}
	if s.maxPromisesBytes == 0 {
		s.maxPromisesBytes = 1 << 20
	}
	if s.limits == (reserve.Limits{}) {
		s.limits = reserve.Limits{MaxRemembered: 8}
	}
	s.liveEvery = max(1, s.liveEvery)
	return &s
}

// found is what a search has come to.
type found struct {
	states, transitions, depth, judgedLive int
	err                                    error
	trace                                  []action
	// whole is false when the search has ended at its limit.
	whole bool
}

// begin is the first state of a scenario.
func (s *scenario) begin() (*world, error) {
	w := newWorld(s)
	w.left = budget{takeovers: plenty}
	err := w.readRequests()
	for turns := 0; err == nil && turns < 4; turns++ {
		w, _, err = w.turn(s.leaders)
	}
	for r := 0; err == nil && r < s.bound; r++ {
		w = w.clone()
		for turns := 0; err == nil && turns < 3; turns++ {
			if turns == 0 {
				_, err = w.further(r, s.leaders)
			}
			if err == nil {
				w, _, err = w.turn(s.leaders)
			}
		}
	}
	if err == nil {
		// The others have read what there is, and have not taken over.
		w = w.clone()
		w.left.takeovers, w.preparing = 0, true
		var others []int
		for i := range w.nodes {
			if len(s.leaders) > 0 && !slices.Contains(s.leaders, i) {
				others = append(others, i)
			}
		}
		w, _, err = w.turn(others)
	}
	if err == nil {
		w = w.clone()
		w.left, w.preparing = s.budget, false
	}
	return w, err
}

// replay applies actions; those that are not possible are passed over.
func (w *world) replay(actions []action) (*world, error) {
	for _, x := range actions {
		next, err := w.apply(x)
		if err != nil {
			return w, err
		}
		if next != nil {
			w = next
		}
	}
	return w, nil
}

type frame struct {
	w       *world
	actions []action
	next    int
}

// search visits every state that can be reached, depth first, up to a limit.
func (s *scenario) search(limit int) (f found) {
	w, err := s.begin()
	if err != nil {
		f.err = fmt.Errorf("before the search: %w", err)
		return f
	}
	visited := make(map[key]struct{})
	var t template
	var scratch []int64
	fresh := func(w *world) bool {
		t.bytes, t.ranked = t.bytes[:0], t.ranked[:0]
		w.encode(&t)
		var k key
		k, scratch = t.key(scratch)
		if _, seen := visited[k]; seen {
			return false
		}
		visited[k] = struct{}{}
		f.states++
		return true
	}
	fresh(w)
	stack := []frame{{w: w, actions: w.actions(nil)}}
	for len(stack) > 0 {
		if f.states >= limit {
			return f
		}
		top := &stack[len(stack)-1]
		if top.next == len(top.actions) {
			stack = stack[:len(stack)-1]
			continue
		}
		x := top.actions[top.next]
		top.next++
		next, err := top.w.apply(x)
		if next != nil || err != nil {
			f.transitions++
		}
		if err == nil && next != nil && fresh(next) {
			if f.states%s.liveEvery == 0 {
				f.judgedLive++
				err = next.live()
			}
			stack = append(stack, frame{w: next, actions: next.actions(nil)})
			f.depth = max(f.depth, len(stack))
		}
		if err != nil {
			f.err = err
			for i := range stack {
				if stack[i].next > 0 {
					f.trace = append(f.trace, stack[i].actions[stack[i].next-1])
				}
			}
			return f
		}
	}
	f.whole = true
	return f
}

// fails replays a trace and returns what is wrong at its end or on its way.
func (s *scenario) fails(trace []action) error {
	w, err := s.begin()
	if err != nil {
		return err
	}
	if w, err = w.replay(trace); err != nil {
		return err
	}
	return w.live()
}

// shorten leaves out what a failure does not need.
func (s *scenario) shorten(trace []action) []action {
	for size := len(trace) / 2; size > 0; {
		shortened := false
		for at := 0; at+size <= len(trace); {
			if without := slices.Concat(trace[:at], trace[at+size:]); s.fails(without) != nil {
				trace, shortened = without, true
			} else {
				at++
			}
		}
		if !shortened {
			size /= 2
		}
	}
	return trace
}

func (s *scenario) explain(f found) string {
	trace := s.shorten(f.trace)
	var b strings.Builder
	for _, x := range trace {
		fmt.Fprintf(&b, "\t%v\n", x)
	}
	return fmt.Sprintf("%s: %v\nshortened, after\n%sit is: %v", s.name, f.err, b.String(), s.fails(trace))
}

// TestSearch visits every state of small spaces, and with STARLING_LONG=1 of
// large ones. With the race detector, which has nothing to find here, only the
// smallest are visited.
func TestSearch(t *testing.T) {
	spaces := small
	if raceDetector {
		spaces = slices.DeleteFunc(slices.Clone(small), func(s scenario) bool { return s.states > 6000 })
	}
	if os.Getenv("STARLING_LONG") != "" {
		spaces = large
	}
	var changed []string
	for _, s := range spaces {
		t.Run(s.name, func(t *testing.T) {
			s := s.withDefaults()
			began := time.Now()
			f := s.search(1 << 40)
			if f.err != nil {
				t.Fatal("FOUND " + s.explain(f))
			}
			t.Logf("%d states, %d transitions, depth %d, %d judged by how they go on, %.1f s",
				f.states, f.transitions, f.depth, f.judgedLive, time.Since(began).Seconds())
			require.True(t, f.whole)
			if s.states > 0 && s.states != f.states {
				changed = append(changed, fmt.Sprintf("%s: %d states, stated are %d", s.name, f.states, s.states))
			}
		})
	}
	require.Empty(t, changed, "state the new numbers if the protocol has changed")
}
