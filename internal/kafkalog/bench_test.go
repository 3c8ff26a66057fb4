package kafkalog_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/kafkalog"
	"github.com/starling-fleet/starling/internal/kafkatest"
	"github.com/starling-fleet/starling/schemas/topics"
)

// The benchmarks run on one real broker on the same machine, so broker and
// client share its cores.

const benchPartitions = 24

func benchLog(b *testing.B, change func(*kafkalog.Config)) *kafkalog.Log {
	cfg := testConfig(kafkatest.Shared(b).Brokers())
	cfg.Partitions = benchPartitions
	if change != nil {
		change(&cfg)
	}
	return openLog(b, cfg)
}

// reports resemble encoded reports of one vehicle: mostly small differences.
func reports(n, bytes int) []eventlog.Record {
	rng := rand.New(rand.NewPCG(1, 2))
	out := make([]eventlog.Record, n)
	for i := range out {
		v := make([]byte, bytes)
		for j := 0; j+8 <= bytes; j += 8 {
			binary.LittleEndian.PutUint64(v[j:], 0x4050_1234_0000_0000|uint64(rng.Uint32()>>8))
		}
		out[i] = eventlog.Record{Key: fmt.Appendf(nil, "vehicle-%06d", i), Value: v}
	}
	return out
}

type countdown struct {
	wg  sync.WaitGroup
	mu  sync.Mutex
	err error
}

func (c *countdown) Done(_ int64, err error) {
	if err != nil {
		c.mu.Lock()
		c.err = err
		c.mu.Unlock()
	}
	c.wg.Done()
}

func appendAll(b *testing.B, l *kafkalog.Log, records []eventlog.Record, n int) {
	var c countdown
	c.wg.Add(n)
	for i := range n {
		if err := l.Append(context.Background(), topics.Locations, int32(i%benchPartitions), records[i%len(records)], &c); err != nil {
			b.Fatal(err)
		}
	}
	c.wg.Wait()
	require.NoError(b, c.err)
}

func BenchmarkAppend(b *testing.B) {
	for _, codec := range []string{"lz4", "snappy", "none", "zstd"} {
		for _, bytes := range []int{80, 1000} {
			b.Run(fmt.Sprintf("%s/%dB", codec, bytes), func(b *testing.B) {
				l := benchLog(b, func(c *kafkalog.Config) { c.Compression = codec })
				records := reports(10_000, bytes)
				appendAll(b, l, records, 10_000)
				b.ReportAllocs()
				before := cpuNow(b)
				b.ResetTimer()
				appendAll(b, l, records, b.N)
				reportCPU(b, before, b.N)
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rec/s")
			})
		}
	}
}

// cpu is the processor time of this process and of the broker.
type cpu struct{ client, broker time.Duration }

func cpuNow(b *testing.B) cpu {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	broker, err := kafkatest.Shared(b).CPUTime()
	require.NoError(b, err)
	return cpu{time.Duration(u.Utime.Nano() + u.Stime.Nano()), broker}
}

// reportCPU states what n records cost, which other load on the machine
// changes less than it changes times.
func reportCPU(b *testing.B, before cpu, n int) {
	after := cpuNow(b)
	b.ReportMetric(float64(after.client-before.client)/float64(n), "client-cpu-ns/rec")
	b.ReportMetric(float64(after.broker-before.broker)/float64(n), "broker-cpu-ns/rec")
}

// BenchmarkAppendPaced appends 20,000 records a second for two seconds, spread
// over the partitions.
func BenchmarkAppendPaced(b *testing.B) {
	for _, linger := range []time.Duration{0, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond} {
		b.Run(linger.String(), func(b *testing.B) {
			l := benchLog(b, func(c *kafkalog.Config) { c.Linger = linger })
			records := reports(10_000, 80)
			appendAll(b, l, records, 10_000)
			before, n := cpuNow(b), 0
			b.ResetTimer()
			for range b.N {
				var c countdown
				tick := time.NewTicker(time.Millisecond)
				for range 2000 {
					<-tick.C
					c.wg.Add(20)
					for range 20 {
						require.NoError(b, l.Append(context.Background(), topics.Locations, int32(rand.IntN(benchPartitions)), records[n%len(records)], &c))
						n++
					}
				}
				tick.Stop()
				c.wg.Wait()
				require.NoError(b, c.err)
			}
			reportCPU(b, before, n)
		})
	}
}

// BenchmarkAppendLatency appends one record at a time.
func BenchmarkAppendLatency(b *testing.B) {
	for _, linger := range []time.Duration{0, 2 * time.Millisecond, 5 * time.Millisecond} {
		b.Run(linger.String(), func(b *testing.B) {
			l := benchLog(b, func(c *kafkalog.Config) { c.Linger = linger })
			records := reports(1, 80)
			appendAll(b, l, records, 1000)
			b.ResetTimer()
			for range b.N {
				appendAll(b, l, records, 1)
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	l := benchLog(b, nil)
	const n = 1_000_000
	appendAll(b, l, reports(10_000, 80), n)
	start := make(map[int32]int64)
	for p := range int32(benchPartitions) {
		start[p] = 0
	}
	b.Run("one reader of all", func(b *testing.B) {
		b.ReportAllocs()
		before := cpuNow(b)
		for range b.N {
			readCount(b, l, start, n)
		}
		reportCPU(b, before, n*b.N)
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rec/s")
	})
	b.Run("a reader for each partition", func(b *testing.B) {
		for range b.N {
			var wg sync.WaitGroup
			for p := range int32(benchPartitions) {
				wg.Go(func() { readCount(b, l, map[int32]int64{p: 0}, n/benchPartitions) })
			}
			wg.Wait()
		}
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rec/s")
	})
}

func readCount(b *testing.B, l *kafkalog.Log, start map[int32]int64, n int) {
	r, err := l.NewReader(context.Background(), topics.Locations, start)
	if err != nil {
		b.Error(err)
		return
	}
	defer r.Close()
	for got := 0; got < n; {
		batch, err := r.Poll(context.Background())
		if err != nil {
			b.Error(err)
			return
		}
		got += len(batch.Records)
	}
}

// BenchmarkCheckpoint owns 24 partitions and checkpoints all of them at once,
// which is what a tracker does at every interval.
func BenchmarkCheckpoint(b *testing.B) {
	for _, changes := range []int{1, 1000, 4000} {
		b.Run(fmt.Sprintf("%d keys of 600B in each of %d partitions", changes, benchPartitions), func(b *testing.B) {
			l := benchLog(b, nil)
			records := reports(changes, 600)
			before := footprint()
			round := make([]chan int64, benchPartitions)
			for p := range round {
				round[p] = make(chan int64)
			}
			done := make(chan error, benchPartitions)
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() {
				ended <- l.Own(ctx, eventlog.OwnSpec{Group: "bench", Source: topics.Locations, State: topics.TrackerState}, func(ctx context.Context, c eventlog.Claim) error {
					_, err := c.Load(ctx, func(_, _ []byte) error { return nil })
					done <- err
					for {
						select {
						case n := <-round[c.Partition()]:
							done <- c.Checkpoint(ctx, records, n)
						case <-c.Revoked():
							return nil
						}
					}
				})
			}()
			await := func() {
				for range benchPartitions {
					require.NoError(b, <-done)
				}
			}
			await()
			after, began := footprint(), cpuNow(b)
			b.ResetTimer()
			for i := range b.N {
				for p := range round {
					round[p] <- int64(i)
				}
				await()
			}
			b.StopTimer()
			used := cpuNow(b)
			b.ReportMetric(float64((used.client-began.client).Milliseconds())/float64(b.N), "client-cpu-ms/op")
			b.ReportMetric(float64((used.broker-began.broker).Milliseconds())/float64(b.N), "broker-cpu-ms/op")
			b.ReportMetric(float64(after.goroutines-before.goroutines), "goroutines")
			b.ReportMetric(float64(after.heap-before.heap)/1024, "heap-KiB")
			cancel()
			require.NoError(b, <-ended)
		})
	}
}

type cost struct {
	goroutines int
	heap       int64
}

func footprint() cost {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return cost{runtime.NumGoroutine(), int64(m.HeapInuse)}
}

// BenchmarkLoad loads a partition of 5,000 keys of 600 bytes that were
// checkpointed ten times over.
func BenchmarkLoad(b *testing.B) {
	l := benchLog(b, nil)
	records := reports(5000, 600)
	ctx, cancel := context.WithCancel(context.Background())
	err := l.Own(ctx, eventlog.OwnSpec{Group: "bench", Source: topics.Locations, State: topics.TrackerState}, func(ctx context.Context, c eventlog.Claim) error {
		if c.Partition() != 0 {
			<-c.Revoked()
			return nil
		}
		defer cancel()
		for i := range 11 {
			n := 0
			if i > 0 {
				if err := c.Checkpoint(ctx, records, int64(i)); err != nil {
					return err
				}
				continue
			}
			if _, err := c.Load(ctx, func(_, _ []byte) error { n++; return nil }); err != nil {
				return err
			}
		}
		b.ResetTimer()
		for range b.N {
			n := 0
			if _, err := c.Load(ctx, func(_, _ []byte) error { n++; return nil }); err != nil {
				return err
			}
			if n != len(records) {
				return fmt.Errorf("loaded %d keys", n)
			}
		}
		b.StopTimer()
		return nil
	})
	if err != nil && ctx.Err() == nil {
		b.Fatal(err)
	}
}
