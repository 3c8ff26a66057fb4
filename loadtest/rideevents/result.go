package rideevents

import (
	"fmt"
	"strings"
	"time"

	"github.com/starling-fleet/starling/internal/latency"
	"github.com/starling-fleet/starling/loadtest/report"
)

// Served is what one server did in one round.
type Served struct {
	// Sent and Delivered are reports, or publications, and what subscribers were
	// sent, in a second. A position may be left out when a newer one has come.
	Sent      float64 `json:"sent_per_s"`
	Delivered float64 `json:"delivered_per_s"`
	// ToClient is from when a report or publication was sent; FromLog from when the
	// log took the report (Starling only).
	ToClient latency.Summary `json:"to_client"`
	FromLog  latency.Summary `json:"from_log"`
	// CPUMicros is the server's CPU time for each delivery, all that it did
	// included; BareCPUMicros what it used for each report or publication when
	// nobody had subscribed.
	CPUMicros     float64 `json:"cpu_us_per_delivery"`
	BareCPUMicros float64 `json:"cpu_us_without_subscribers"`
	// RedisMicros is Redis's CPU time for each delivery.
	RedisMicros float64 `json:"redis_cpu_us_per_delivery"`
	// Cores that were busy on average.
	ServerCores    float64 `json:"server_cores"`
	GeneratorCores float64 `json:"generator_cores"`
	// Silent subscribers were sent nothing.
	Silent int `json:"silent"`
}

// Result is what was measured, round by round.
type Result struct {
	Options    Options  `json:"-"`
	Starling   []Served `json:"starling"`
	Centrifugo []Served `json:"centrifugo"`
}

// p99 and the others are medians over rounds.
func p99(all []Served) time.Duration {
	return report.Median(all, func(s Served) time.Duration { return s.ToClient.P99 })
}

func cpu(all []Served) float64 {
	return report.Median(all, func(s Served) float64 { return s.CPUMicros })
}

// String is the result as a table.
func (r *Result) String() string {
	var out strings.Builder
	o := &r.Options
	fmt.Fprintf(&out, "%d subscribers on %d connections, one position each every %v, measured %d times for %v\n\n", o.Subscribers, o.Connections, o.Period, o.Rounds, o.Duration)
	out.WriteString("| server | sent/s | delivered/s | sent to client p50, p99 | log to client p50, p99 | server's CPU a delivery | without subscribers | Redis's CPU | busy cores: server, generator and clients | silent |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, part := range []struct {
		name   string
		served []Served
	}{{"Starling", r.Starling}, {"Centrifugo", r.Centrifugo}} {
		for _, s := range part.served {
			fmt.Fprintf(&out, "| %s | %.0f | %.0f | %v, %v | %v | %.1f µs | %.1f µs | %.1f µs | %.2f, %.2f | %d |\n", part.name, s.Sent, s.Delivered,
				ms(s.ToClient.P50), ms(s.ToClient.P99), fromLog(s), s.CPUMicros, s.BareCPUMicros, s.RedisMicros, s.ServerCores, s.GeneratorCores, s.Silent)
		}
	}
	if len(r.Centrifugo) > 0 {
		fmt.Fprintf(&out, "\nmedians: p99 %v beside %v, CPU a delivery %.1f µs beside %.1f µs (%.2f x)\n", ms(p99(r.Starling)), ms(p99(r.Centrifugo)), cpu(r.Starling), cpu(r.Centrifugo), cpu(r.Starling)/cpu(r.Centrifugo))
	}
	return out.String()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }

func fromLog(s Served) string {
	if s.FromLog.Count == 0 {
		return "-"
	}
	return ms(s.FromLog.P50) + ", " + ms(s.FromLog.P99)
}

// Misses are the goals that were missed.
func (r *Result) Misses() (misses []string) {
	o := &r.Options
	if got := p99(r.Starling); got > o.MaxP99 {
		misses = append(misses, fmt.Sprintf("99 in 100 positions take %v to their subscriber, at most %v is the goal", ms(got), ms(o.MaxP99)))
	}
	for _, s := range r.Starling {
		if s.Silent > 0 {
			misses = append(misses, fmt.Sprintf("%d subscribers were sent nothing", s.Silent))
		}
	}
	if len(r.Centrifugo) == 0 {
		return misses
	}
	if got, other := p99(r.Starling), p99(r.Centrifugo); got > other {
		misses = append(misses, fmt.Sprintf("99 in 100 positions take %v, Centrifugo's %v", ms(got), ms(other)))
	}
	if got, most := cpu(r.Starling), o.MaxCPURatio*cpu(r.Centrifugo); got > most {
		misses = append(misses, fmt.Sprintf("a delivery costs %.1f µs of CPU, %.1f µs is %.2f of Centrifugo's", got, most, o.MaxCPURatio))
	}
	return misses
}
