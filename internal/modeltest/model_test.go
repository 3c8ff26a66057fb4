package modeltest

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/schemas/topics"
)

var (
	oneSeed = flag.Uint64("seed", 0, "run this seed alone")
	seeds   = flag.Uint64("seeds", defaultSeeds, "how many seeds TestModel runs, from 1 on")
)

// actionsPerSeed is how long a run is: long enough for a few disturbances to
// meet, short enough for a person to read what happened.
const actionsPerSeed = 40

// patience is how long, on the wall clock, a seed may take that takes some
// milliseconds: one that never falls idle shall be named too.
const patience = 3 * time.Minute

// TestModel lives through many worlds, each in a bubble of its own.
func TestModel(t *testing.T) {
	var sum sums
	eachSeed(t, *seeds, func(t *testing.T, seed uint64) { sum.add(live(t, seed)) })
	t.Cleanup(func() { t.Logf("%+v", sum.tally) })
}

// live runs one seed and fails the test with it.
func live(t *testing.T, seed uint64, options ...func(*world)) (w *world) {
	watchdog := time.AfterFunc(patience, func() { panic(fmt.Sprintf("seed %d has not ended after %v", seed, patience)) })
	defer watchdog.Stop()
	defer func() {
		if w == nil || w.failed() != "" || t.Failed() {
			t.Logf("repeat it with: go test ./internal/modeltest -run TestModel -seed %d", seed)
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		w = newWorld(t, seed)
		for _, option := range options {
			option(w)
		}
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

// TestASeedRepeats: what a seed's run leaves in the log is the same each time,
// to the byte, append times included. Where several processes are disturbed,
// only most seeds do: who comes first within an instant is the scheduler's.
func TestASeedRepeats(t *testing.T) {
	repeated := 0
	for seed := uint64(1); seed <= repeatedSeeds; seed++ {
		calm := func(w *world) { w.calm = true }
		require.Equal(t, live(t, seed, calm).digest(), live(t, seed, calm).digest(), "seed %d", seed)
		if first, second := live(t, seed), live(t, seed); first.digest() == second.digest() {
			repeated++
		}
	}
	t.Logf("of %d seeds with disturbances, %d left the same log twice", repeatedSeeds, repeated)
}

// digest is the SHA-256 of all that a reader of the log sees.
func (w *world) digest() [sha256.Size]byte {
	hash := sha256.New()
	for p := range int32(partitions) {
		for _, rec := range w.store.Records(topics.Locations, p) {
			fmt.Fprintln(hash, rec.Offset, rec.AppendTimeMS, string(rec.Key), string(rec.Value))
		}
		for _, entry := range w.read(p).entries {
			fmt.Fprintln(hash, entry.key, entry.value)
		}
	}
	return [sha256.Size]byte(hash.Sum(nil))
}
