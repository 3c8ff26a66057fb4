package step

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/gpsfilter"
)

// counter is a filter that counts its steps.
type counter struct {
	Filter
	steps int
}

func (f *counter) Step(s *gpsfilter.State, fix gpsfilter.Fix) gpsfilter.Estimate {
	f.steps++
	return f.Filter.Step(s, fix)
}

// openWindow returns a partition with one vehicle of so many open fixes.
func openWindow(t testing.TB, fixes int) *Partition {
	s := DefaultSettings()
	s.WindowMS, s.WindowMaxFixes, s.ForgetSingleAfterMS = int64(fixes)*1000, 4096, s.ForgetAfterMS
	p, err := NewPartition(s, 1)
	require.NoError(t, err)
	for i := range int64(fixes) {
		requireStep(t, p, report(i, i*1000+1000, "a", i+1, i*1000+1000))
	}
	return p
}

func requireStep(t testing.TB, p *Partition, rec Record) Result {
	r, err := p.Step(rec)
	require.NoError(t, err)
	require.NoError(t, r.Poison)
	return r
}

// withoutSavepoints drops every vehicle's.
func withoutSavepoints(p *Partition) {
	for _, v := range p.vehicles {
		v.savepoints = nil
	}
}

// Whatever comes in whatever order, with savepoints the bytes are those of a
// partition that goes through the whole window each time.
func TestSavepointsChangeNothing(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 0))
		s := DefaultSettings()
		s.WindowMS, s.WindowMaxFixes = int64(10+rng.IntN(200))*1000, 20+rng.IntN(300)
		with, err := NewPartition(s, 1)
		require.NoError(t, err)
		without, err := NewPartition(s, 1)
		require.NoError(t, err)
		used, clock := 0, int64(1_000_000)
		for i := range int64(500) {
			clock += []int64{0, 300, 1000, 2500}[rng.IntN(4)]
			if rng.IntN(150) == 0 {
				clock += s.WindowMS + 1000 // the window closes
			}
			var times []int64
			for range 1 + rng.IntN(3) {
				behind := rng.ExpFloat64() * float64(s.WindowMS) / 6
				if rng.IntN(2) == 0 {
					behind = 0
				}
				times = append(times, clock-int64(behind)/250*250)
			}
			rec := report(i, clock, fmt.Sprint("v", rng.IntN(2)), i+1, times...)
			got := requireStep(t, with, rec)
			want := requireStep(t, without, rec)
			require.Equal(t, want.Track.Append(nil), got.Track.Append(nil), "seed %d, record %d", seed, i)
			for _, v := range with.vehicles {
				if v.savepoints != nil && len(v.savepoints.list) > 0 {
					used++
				}
			}
			withoutSavepoints(without)
		}
		require.Equal(t, without.Snapshot(nil, nil).Changes, with.Snapshot(nil, nil).Changes)
		require.Greater(t, used, 100, "seed %d hardly had savepoints", seed)
	}
}

// What a fix costs that is a little out of order depends on how far behind it
// is, and hardly on the window.
func TestAFixOutOfOrderDoesNotGoThroughTheWholeWindow(t *testing.T) {
	for open, most := range map[int]int{30: 10, 1000: 64} {
		p := openWindow(t, open)
		n := int64(open)
		requireStep(t, p, report(n, n*1000, "a", n+1, (n-3)*1000+500))
		count := &counter{Filter: p.filter}
		p.filter = count
		requireStep(t, p, report(n+1, n*1000, "a", n+2, n*1000-1500))
		require.LessOrEqual(t, count.steps, most, "%d open fixes", open)
	}
}

func TestSavepointsAreBounded(t *testing.T) {
	p := newTestPartition(t)
	offset := p.offset
	for i := range int64(maxSavepointVehicles + 10) {
		id := fmt.Sprint("v", i)
		for k := range int64(100) {
			offset++
			requireStep(t, p, report(offset, 60_000, id, k+1, 50_000+k/2*200-k%2*100))
		}
		require.NotEmpty(t, p.vehicles[id].savepoints.list)
		require.LessOrEqual(t, len(p.vehicles[id].savepoints.list), maxSavepoints)
	}
	have := 0
	for _, v := range p.vehicles {
		if v.savepoints != nil {
			have++
		}
	}
	require.Equal(t, maxSavepointVehicles, have)
	require.Len(t, p.savepoints, maxSavepointVehicles)
	require.LessOrEqual(t, maxSavepointVehicles*maxSavepoints*int(unsafe.Sizeof(savepoint{})), 7<<19, "the bound that is documented")
}

// A panic amid a window that has savepoints leaves none that it may have spoilt.
func TestPanicLeavesNoSavepoint(t *testing.T) {
	hurt, whole := openWindow(t, 100), openWindow(t, 100)
	for _, p := range []*Partition{hurt, whole} {
		requireStep(t, p, report(100, 100_000, "a", 101, 90_500))
	}
	hurt.filter = trap{hurt.filter, 101_000}
	r, err := hurt.Step(report(101, 101_000, "a", 102, 95_500, 101_000))
	require.NoError(t, err)
	require.ErrorContains(t, r.Poison, "sprung")
	_, err = whole.Step(Record{Offset: 101, AppendTimeMS: 101_000, Value: tickValue})
	require.NoError(t, err)
	next := report(102, 101_000, "a", 102, 98_500)
	require.Equal(t, requireStep(t, whole, next).Track.Append(nil), requireStep(t, hurt, next).Track.Append(nil))
}

// BenchmarkOutOfOrder is a report of one fix that is one, or an eighth of the
// window, behind the newest, between two that come in order.
func BenchmarkOutOfOrder(b *testing.B) {
	for _, open := range []int{30, 1000} {
		for name, behindMS := range map[string]int64{"one": 500, "eighth": int64(open)*125 + 500} {
			b.Run(fmt.Sprintf("open=%d/behind=%s", open, name), func(b *testing.B) {
				p := openWindow(b, open)
				n := int64(open)
				for b.Loop() {
					for _, ms := range []int64{(n + 1) * 1000, (n+1)*1000 - behindMS} {
						requireStep(b, p, report(p.offset+1, (n+1)*1000, "a", p.offset+2, ms))
					}
					n++
				}
			})
		}
	}
}

// A fix that is the newest when it leaves the window has been through the filter
// already: its final point and the state behind it are what they were then. The
// other partition, which a checkpoint has restored, knows neither and computes both.
func TestTheNewestFixIsNotSteppedAgain(t *testing.T) {
	p := newTestPartition(t)
	filter := &counter{Filter: p.filter}
	p.filter = filter
	requireStep(t, p, report(0, 100_000, "a", 1, 97_000, 98_000, 99_000))
	requireStep(t, p, report(1, 100_500, "b", 1, 100_000))
	require.Equal(t, 4, filter.steps)
	loader, err := NewLoader(p.settings, 1)
	require.NoError(t, err)
	snapshot := p.Snapshot(nil, nil)
	for _, change := range snapshot.Changes {
		require.NoError(t, loader.Add(change.Key, change.Value))
	}
	restored, err := loader.Partition(snapshot.Resume, Bounds{End: snapshot.Resume})
	require.NoError(t, err)
	again := &counter{Filter: restored.filter}
	restored.filter = again

	records := []Record{
		{Offset: 2, AppendTimeMS: 131_000, Value: tickValue},
		report(3, 132_000, "a", 2, 131_500),
		report(4, 133_000, "b", 2, 132_500),
	}
	for _, rec := range records {
		want := requireStep(t, restored, rec).Track.Append(nil)
		require.Equal(t, want, requireStep(t, p, rec).Track.Append(nil))
	}
	require.Equal(t, 4+2+0+2, filter.steps, "two of a's when its window closes, none of b's, and the new ones")
	require.Equal(t, 3+1+2, again.steps)
	require.Equal(t, restored.Snapshot(nil, nil).Changes, p.Snapshot(nil, nil).Changes)
}
