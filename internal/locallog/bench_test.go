package locallog

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
)

func benchLog(b *testing.B, change func(*Config)) *Log {
	b.Helper()
	cfg := DefaultConfig()
	cfg.Directory = b.TempDir()
	cfg.LowWaterFreeBytes, cfg.LowWaterPercent = 64<<20, 0
	if change != nil {
		change(&cfg)
	}
	l, err := open(cfg, topics.All(), newRegistry(), quietLogger, environment{fs: vfs.Default, now: time.Now})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, l.Close()) })
	return l
}

// cpuTime is what the process has used of all cores.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func reportCPU(b *testing.B, before time.Duration, n int) {
	b.ReportMetric(float64(cpuTime(b)-before)/float64(n), "cpu-ns/rec")
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rec/s")
}

// window lets a number of appends be under way.
type window struct {
	sent, limit int64
	acked       atomic.Int64
	progress    chan struct{} // capacity 1
	failed      atomic.Pointer[error]
}

func newWindow(limit int) *window {
	return &window{limit: int64(limit), progress: make(chan struct{}, 1)}
}

func (w *window) Done(_ int64, err error) {
	if err != nil {
		w.fail(err)
	}
	if n := w.acked.Add(1); n%16 == 0 {
		w.signal()
	}
}

func (w *window) fail(err error) { w.failed.CompareAndSwap(nil, &err) }

func (w *window) signal() {
	select {
	case w.progress <- struct{}{}:
	default:
	}
}

// next waits until another append fits.
func (w *window) next() {
	for w.sent-w.acked.Load() >= w.limit {
		<-w.progress
	}
	w.sent++
}

// drain waits until all are acknowledged.
func (w *window) drain() {
	for w.acked.Load() < w.sent {
		select {
		case <-w.progress:
		case <-time.After(time.Millisecond):
		}
	}
}

// BenchmarkAppend has 16 goroutines with as many appends under way together
// as its name states.
func BenchmarkAppend(b *testing.B) {
	for _, sync := range []bool{true, false} {
		for _, size := range []int{60, 300, 2048} {
			for _, flight := range []int{1000, 20000} {
				b.Run(fmt.Sprintf("sync=%v/bytes=%d/flight=%d", sync, size, flight), func(b *testing.B) {
					benchAppend(b, sync, size, flight)
				})
			}
		}
	}
}

func benchAppend(b *testing.B, synced bool, size, flight int) {
	l := benchLog(b, func(c *Config) { c.Sync = synced })
	const writers = 16
	value := make([]byte, size-10)
	_, err := rand.Read(value)
	require.NoError(b, err)
	before := cpuTime(b)
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range writers {
		n := b.N / writers
		if w < b.N%writers {
			n++
		}
		wg.Go(func() {
			win := newWindow(flight / writers)
			rec := eventlog.Record{Key: []byte("vehicle-01"), Value: value}
			for i := range n {
				win.next()
				if err := l.Append(context.Background(), topics.Locations, int32((w+i)%l.cfg.Partitions), rec, win); err != nil {
					b.Error(err)
					return
				}
			}
			win.drain()
			if err := win.failed.Load(); err != nil {
				b.Error(*err)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	reportCPU(b, before, b.N)
	b.SetBytes(int64(size))
}

// stopwatch takes the time from an append to its completion.
type stopwatch struct {
	began time.Time
	took  *[]time.Duration // only completions write: one at a time
	left  *sync.WaitGroup
}

func (s stopwatch) Done(int64, error) {
	*s.took = append(*s.took, time.Since(s.began))
	s.left.Done()
}

// BenchmarkPaced appends 20,000 records a second, 10 at a time, spread over
// the partitions, and reports what that costs and how long a record waits.
func BenchmarkPaced(b *testing.B) {
	for _, interval := range []time.Duration{0, 500 * time.Microsecond, time.Millisecond, 2 * time.Millisecond} {
		b.Run(fmt.Sprintf("interval=%v", interval), func(b *testing.B) {
			l := benchLog(b, func(c *Config) { c.GroupInterval = interval })
			value := make([]byte, 70)
			var took []time.Duration
			var left sync.WaitGroup
			before, start := cpuTime(b), time.Now()
			b.ResetTimer()
			for i := range b.N {
				if i%10 == 0 {
					time.Sleep(time.Until(start.Add(time.Duration(i) * 50 * time.Microsecond)))
				}
				left.Add(1)
				s := stopwatch{time.Now(), &took, &left}
				require.NoError(b, l.Append(context.Background(), topics.Locations, int32(i*7%l.cfg.Partitions), eventlog.Record{Value: value}, s))
			}
			left.Wait()
			b.StopTimer()
			reportCPU(b, before, b.N)
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
		})
	}
}

// BenchmarkRead reads what was appended, from memory and from disk, with one
// reader of all partitions.
func BenchmarkRead(b *testing.B) {
	for _, from := range []string{"memory", "disk"} {
		for _, size := range []int{60, 300} {
			b.Run(fmt.Sprintf("%s/bytes=%d", from, size), func(b *testing.B) {
				l := benchLog(b, func(c *Config) {
					c.Sync = false
					c.TailCacheBytes = 1 << 40 // all of it
					if from == "disk" {
						c.TailCacheBytes = 0
					}
				})
				fill(b, l, size, b.N)
				r, err := l.NewReader(context.Background(), topics.Locations, allPartitions(l))
				require.NoError(b, err)
				defer r.Close()
				before := cpuTime(b)
				b.ResetTimer()
				for n := 0; n < b.N; {
					batch, err := r.Poll(context.Background())
					require.NoError(b, err)
					n += len(batch.Records)
				}
				b.StopTimer()
				reportCPU(b, before, b.N)
			})
		}
	}
}

func allPartitions(l *Log) map[int32]int64 {
	start := make(map[int32]int64)
	for p := range l.Partitions() {
		start[p] = 0
	}
	return start
}

func fill(tb testing.TB, l *Log, size, n int) {
	w := newWindow(5000)
	value := make([]byte, size)
	_, err := rand.Read(value)
	require.NoError(tb, err)
	for i := range n {
		w.next()
		require.NoError(tb, l.Append(context.Background(), topics.Locations, int32(i%l.cfg.Partitions), eventlog.Record{Value: value}, w))
	}
	w.drain()
	require.Nil(tb, w.failed.Load())
}

// BenchmarkOpen opens a log of as many records.
func BenchmarkOpen(b *testing.B) {
	const n = 3_000_000
	cfg := DefaultConfig()
	cfg.Directory, cfg.Sync, cfg.LowWaterFreeBytes = b.TempDir(), false, 64<<20
	l, err := Open(cfg, topics.All(), newRegistry(), quietLogger)
	require.NoError(b, err)
	fill(b, l, 60, n)
	require.NoError(b, l.Close())
	b.ResetTimer()
	for range b.N {
		l, err := Open(cfg, topics.All(), newRegistry(), quietLogger)
		require.NoError(b, err)
		b.StopTimer()
		bounds, err := l.Bounds(context.Background(), topics.Locations)
		require.NoError(b, err)
		require.Equal(b, int64(n/cfg.Partitions), bounds[0].End)
		require.NoError(b, l.Close())
		b.StartTimer()
	}
}
