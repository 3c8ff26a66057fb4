package overload

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/internal/fleetsim"
	"github.com/starling-fleet/starling/internal/latency"
)

// Result is what a run saw and what did not hold.
type Result struct {
	Duration time.Duration `json:"duration_ns"`
	Factor   float64       `json:"factor"`
	// SustainableFixesPerSecond become searchable; OfferedFixesPerSecond is
	// Factor times that.
	SustainableFixesPerSecond float64 `json:"sustainable_fixes_per_second"`
	OfferedFixesPerSecond     float64 `json:"offered_fixes_per_second"`
	// Samples are one a second, from the start of the overload until its
	// senders had everything acknowledged.
	Samples           []Sample `json:"samples"`
	PeakResidentBytes int64    `json:"peak_resident_bytes"`
	ResidentBound     int64    `json:"resident_bound_bytes"`
	LiveBound         int64    `json:"live_bound_bytes"`
	// DrainTime is how long after the load the last acknowledgement came.
	DrainTime time.Duration `json:"drain_ns"`
	// Flood is the senders of the overload, Honest the fleet that behaves.
	Flood         client.Stats      `json:"flood"`
	FloodLatency  latency.Summary   `json:"flood_ack_latency"`
	FloodStatuses map[string]int64  `json:"flood_statuses"`
	Honest        fleetsim.Progress `json:"honest"`
	HonestError   string            `json:"honest_error,omitempty"`
	// HostileStatuses were received by clients that do not read and garbage senders.
	HostileStatuses map[string]int64 `json:"hostile_statuses"`
	Search          latency.Summary  `json:"search_latency"`
	SearchFailures  map[string]int64 `json:"search_failures"`
	// IdleServed idle streams were acknowledged a report after the load.
	IdleServed int64  `json:"idle_served"`
	IdleError  string `json:"idle_error,omitempty"`
	// Settled is true if the fleet has counted everything that was acknowledged,
	// with no partition stale, SettleTime after the last acknowledgement.
	Settled       bool          `json:"settled"`
	SettleTime    time.Duration `json:"settle_ns"`
	InFlightAtEnd int64         `json:"in_flight_bytes_at_end"`
	Account       Account       `json:"account"`
	// Faults name what did not hold.
	Faults []string `json:"faults"`
}

// peakLive is the largest live heap sampled.
func (r *Result) peakLive() (most int64) {
	for _, s := range r.Samples {
		most = max(most, s.LiveBytes)
	}
	return most
}

// judge fills in Faults.
func (r *Result) judge(o *Options) {
	r.Faults = r.Account.faults()
	must := func(ok bool, format string, args ...any) {
		if !ok {
			r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
		}
	}
	must(r.PeakResidentBytes <= r.ResidentBound, "the server had %d MiB resident, more than %d", r.PeakResidentBytes>>20, r.ResidentBound>>20)
	must(len(r.Samples) > 0, "the server's memory could not be sampled")
	must(r.peakLive() <= r.LiveBound, "the server had %d MiB live on its heap, more than %d", r.peakLive()>>20, r.LiveBound>>20)
	must(r.InFlightAtEnd == 0, "%d bytes are still charged to reports in flight", r.InFlightAtEnd)

	h := r.Honest
	must(r.HonestError == "", "the honest fleet ended with: %s", r.HonestError)
	must(h.Client.AcknowledgedReports == h.Reports && h.Client.PendingReports == 0,
		"of %d honest reports %d were acknowledged and %d are pending", h.Reports, h.Client.AcknowledgedReports, h.Client.PendingReports)
	must(h.Client.RejectedReports == 0 && h.Client.RefusedFixes == 0, "%d honest reports were rejected and %d fixes refused", h.Client.RejectedReports, h.Client.RefusedFixes)
	must(h.AckLatency.Count > 0 && h.AckLatency.P99 <= o.MaxHonestP99, "honest reports were acknowledged in %v (p99), more than %v", h.AckLatency.P99, o.MaxHonestP99)
	must(r.Search.Count > 0 && r.Search.P99 <= o.MaxSearchP99, "searches took %v (p99), more than %v", r.Search.P99, o.MaxSearchP99)
	must(len(r.SearchFailures) == 0, "searches failed: %s", list(r.SearchFailures))
	must(r.Flood.AcknowledgedFixes > 0, "nothing of the overload was acknowledged")
	must(r.Flood.PendingReports == 0, "%d reports of the overload are unacknowledged", r.Flood.PendingReports)
	must(r.IdleError == "" && r.IdleServed == int64(o.IdleStreams), "%d of %d idle streams were served in the end: %s", r.IdleServed, o.IdleStreams, r.IdleError)
	must(o.GarbageSenders == 0 || r.HostileStatuses["InvalidArgument INVALID_REPORT"] > 0, "no garbage was refused as such")
	must(r.Settled, "the fleet did not catch up: %d of %d acknowledged fixes were counted when nothing changed any more", r.Account.New, r.Account.Acknowledged)
}

func list(counts map[string]int64) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", key, counts[key]))
	}
	if parts == nil {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// String is a table for people.
func (r Result) String() string {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-16s "+format+"\n", append([]any{name}, args...)...)
	}
	ms := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	row("sustainable", "%.0f fixes/s", r.SustainableFixesPerSecond)
	row("offered", "%.0f fixes/s (%.3g times) for %v", r.OfferedFixesPerSecond, r.Factor, r.Duration)
	row("acknowledged", "%d fixes of the overload by the time its senders had drained, %v after its end; ack latency p50 %v p99 %v",
		r.Flood.AcknowledgedFixes, ms(r.DrainTime), ms(r.FloodLatency.P50), ms(r.FloodLatency.P99))
	row("memory", "resident %d MiB at most (bound %d), live heap %d MiB at most (bound %d)",
		r.PeakResidentBytes>>20, r.ResidentBound>>20, r.peakLive()>>20, r.LiveBound>>20)
	for _, s := range r.quarters() {
		row("", "at %3.0f s resident %d MiB, live %d MiB, in flight %d MiB", s.At.Seconds(), s.ResidentBytes>>20, s.LiveBytes>>20, s.InFlightBytes>>20)
	}
	h := r.Honest
	row("honest fleet", "%d reports, %d acknowledged, %d rejected, %d broken streams; ack latency p50 %v p99 %v max %v",
		h.Reports, h.Client.AcknowledgedReports, h.Client.RejectedReports, h.Client.BrokenStreams, ms(h.AckLatency.P50), ms(h.AckLatency.P99), ms(h.AckLatency.Max))
	row("nearest", "%d searches, p50 %v p99 %v max %v; failed: %s", r.Search.Count, ms(r.Search.P50), ms(r.Search.P99), ms(r.Search.Max), list(r.SearchFailures))
	row("idle streams", "%d served after the load", r.IdleServed)
	row("overload got", "%s", list(r.FloodStatuses))
	row("hostile got", "%s", list(r.HostileStatuses))
	a := r.Account
	row("account", "%d fixes acknowledged (and %d never confirmed to clients that do not read); counted: %d new, %d duplicates (%d copies, %d resent), %d conflicts; settled: %v after %v",
		a.Acknowledged, a.Unconfirmed, a.New, a.Duplicates, a.Copies, a.Resent, a.Conflicts, r.Settled, ms(r.SettleTime))
	if len(r.Faults) == 0 {
		row("verdict", "everything held")
	}
	return b.String()
}

// Misses are Faults.
func (r Result) Misses() []string { return r.Faults }

// quarters are the samples at the quarters of the run.
func (r *Result) quarters() (some []Sample) {
	for q := 1; q <= 4 && len(r.Samples) > 0; q++ {
		some = append(some, r.Samples[q*(len(r.Samples)-1)/4])
	}
	return some
}
