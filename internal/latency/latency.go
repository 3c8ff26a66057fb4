// Package latency keeps durations in a histogram of bounded size and error.
package latency

import (
	"fmt"
	"math/bits"
	"sync/atomic"
	"time"
)

// Each power of two of nanoseconds is cut into subBuckets parts, so a quantile
// is at most 1/subBuckets too high (the layout of HdrHistogram, G. Tene).
const (
	subBits    = 5
	subBuckets = 1 << subBits
	buckets    = (64 - subBits) * subBuckets
)

// Histogram counts durations. The zero value is ready; its methods are safe for
// concurrent use.
type Histogram struct {
	counts [buckets]atomic.Int64
	n, sum atomic.Int64
	max    atomic.Int64
}

// Record counts one duration; a negative one counts as zero.
func (h *Histogram) Record(d time.Duration) {
	ns := max(0, int64(d))
	h.counts[bucketOf(uint64(ns))].Add(1)
	h.n.Add(1)
	h.sum.Add(ns)
	for {
		old := h.max.Load()
		if ns <= old || h.max.CompareAndSwap(old, ns) {
			return
		}
	}
}

func bucketOf(ns uint64) int {
	exp := bits.Len64(ns) - subBits - 1
	if exp <= 0 {
		return int(ns)
	}
	return exp<<subBits + int(ns>>exp)
}

// upperBound is the largest duration of a bucket.
func upperBound(bucket int) int64 {
	exp := bucket>>subBits - 1
	if exp <= 0 {
		return int64(bucket)
	}
	return int64(bucket-exp<<subBits+1)<<exp - 1
}

// Count is how many durations were recorded.
func (h *Histogram) Count() int64 { return h.n.Load() }

// Max is the longest.
func (h *Histogram) Max() time.Duration { return time.Duration(h.max.Load()) }

// Mean is their mean, or zero.
func (h *Histogram) Mean() time.Duration {
	if n := h.n.Load(); n > 0 {
		return time.Duration(h.sum.Load() / n)
	}
	return 0
}

// Quantile is a duration that the share q (0 to 1) of all does not exceed; zero
// when nothing was recorded.
func (h *Histogram) Quantile(q float64) time.Duration {
	n := h.n.Load()
	if n == 0 {
		return 0
	}
	rank := min(n, int64(q*float64(n))+1)
	var seen int64
	for i := range h.counts {
		if seen += h.counts[i].Load(); seen >= rank {
			return time.Duration(min(upperBound(i), h.max.Load()))
		}
	}
	return h.Max()
}

// Summary are the usual numbers of a histogram.
type Summary struct {
	Count int64         `json:"count"`
	Mean  time.Duration `json:"mean_ns"`
	P50   time.Duration `json:"p50_ns"`
	P90   time.Duration `json:"p90_ns"`
	P99   time.Duration `json:"p99_ns"`
	Max   time.Duration `json:"max_ns"`
}

// Summary returns the numbers so far.
func (h *Histogram) Summary() Summary {
	return Summary{Count: h.Count(), Mean: h.Mean(), P50: h.Quantile(0.5), P90: h.Quantile(0.9), P99: h.Quantile(0.99), Max: h.Max()}
}

// String is the summary in one line.
func (s Summary) String() string {
	if s.Count == 0 {
		return "none measured"
	}
	r := func(d time.Duration) time.Duration { return d.Round(max(time.Microsecond, d/1000)) }
	return fmt.Sprintf("p50 %v, p90 %v, p99 %v, max %v (%d)", r(s.P50), r(s.P90), r(s.P99), r(s.Max), s.Count)
}
