package modeltest

import (
	"flag"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

var (
	oneSeed = flag.Uint64("seed", 0, "run this seed alone")
	seeds   = flag.Uint64("seeds", defaultSeeds, "how many seeds TestModel runs, from 1 on")
)

// actionsPerSeed is how long a run is: long enough for a few disturbances to
// meet, short enough for a person to read what happened.
const actionsPerSeed = 40

// TestModel lives through many worlds, each in a bubble of its own.
func TestModel(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // many small worlds, none of them lives long
	first, last := uint64(1), *seeds
	if *oneSeed > 0 {
		first, last = *oneSeed, *oneSeed
	}
	var next atomic.Uint64
	next.Store(first)
	var sum sums
	for worker := range 2 {
		t.Run(fmt.Sprint("worker ", worker), func(t *testing.T) {
			t.Parallel()
			for {
				seed := next.Add(1) - 1
				if seed > last || t.Failed() {
					return
				}
				sum.add(live(t, seed))
			}
		})
	}
	t.Cleanup(func() { t.Logf("%+v", sum.tally) })
}

// live runs one seed and fails the test with it.
func live(t *testing.T, seed uint64) (w *world) {
	defer func() {
		if w == nil || w.failed() != "" || t.Failed() {
			t.Logf("repeat it with: go test ./internal/modeltest -run TestModel -seed %d", seed)
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		w = newWorld(t, seed)
		w.run(actionsPerSeed)
		w.judge()
		w.close()
		if f := w.failed(); f != "" {
			t.Fatalf("seed %d: %s", seed, f)
		}
	})
	return w
}

type sums struct {
	mu sync.Mutex
	tally
}

func (s *sums) add(w *world) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports += w.tally.reports
	s.acked += w.tally.acked
	s.kills += w.tally.kills
	s.poison += w.tally.poison
	s.switches += w.tally.switches
	s.published += w.tally.published
	s.stepped += w.tally.stepped
	s.forgotten += w.tally.forgotten
}
