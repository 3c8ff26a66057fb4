package ridedrill

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/starling-fleet/starling/internal/latency"
	findings "github.com/starling-fleet/starling/loadtest/drill/check"
	"github.com/starling-fleet/starling/loadtest/ridedrill/check"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Account is what came of a drill.
type Account struct {
	Options Options
	// Findings are what is off; a drill that passes has none.
	Findings findings.Findings
	Totals   check.Totals
	// Kills and Zombies by role.
	Kills, Zombies map[string]int
	// Flushed and RedisKilled are how often Redis was.
	Flushed, RedisKilled int
	// RedisSuspended is how often it was.
	RedisSuspended int
	// Live is from the append of an event to a follower who was connected then.
	Live latency.Summary
	// Raised is the epoch that was raised in the middle, 0 if none was.
	Raised int64
	// Counted is how many proposals the metrics have counted, Ridden for how long
	// riders asked for rides.
	Counted int64
	Ridden  time.Duration
	// Partial are the rides of which a loss of events was announced to a subscriber.
	Partial                         int64
	RideHistories, VehicleHistories verdicts
}

// conclude judges whether the drill has shown anything.
func (a *Account) conclude() {
	t := &a.Totals
	if t.Proposals == 0 || t.Rides == 0 || t.Heard == 0 || t.Ended[starlingv1.RideEventKind_RIDE_EVENT_KIND_COMPLETED] == 0 {
		a.Findings.Add("a drill that shows nothing", "%d proposals, %d rides, %d of them completed, %d events heard",
			t.Proposals, t.Rides, t.Ended[starlingv1.RideEventKind_RIDE_EVENT_KIND_COMPLETED], t.Heard)
	}
	if a.Options.Followers > 0 && (t.Followed < int64(a.Options.Followers) || t.Connections < 2*t.Followed || t.Resumed == 0 || t.Snapshots == 0 || t.Positions == 0) {
		a.Findings.Add("a drill that shows nothing", "%d rides followed over %d connections, %d events resumed, %d losses announced, %d positions", t.Followed, t.Connections, t.Resumed, t.Snapshots, t.Positions)
	}
	if lost := a.LostShare(); lost < a.Options.MinLost {
		a.Findings.Add("a drill with too little contention", "%.1f %% of the proposals lost, at least %.1f %% must", 100*lost, 100*a.Options.MinLost)
	}
}

// LostShare is the share of the proposals that were refused.
func (a *Account) LostShare() float64 {
	return float64(a.Totals.Lost) / float64(max(a.Totals.Proposals, 1))
}

// OK reports whether the drill found nothing.
func (a *Account) OK() bool { return a.Findings.None() }

// Misses is one line for a drill that found something; String has the findings.
func (a *Account) Misses() []string {
	if a.OK() {
		return nil
	}
	return []string{fmt.Sprintf("the drill found what must not be (repeat with -seed %d)", a.Options.Seed)}
}

// String is the account in words.
func (a *Account) String() string {
	t := &a.Totals
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-22s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("disturbed", "kills %v, suspended %v, Redis flushed %d, killed %d and suspended %d times; seed %d", a.Kills, a.Zombies, a.Flushed, a.RedisKilled, a.RedisSuspended, a.Options.Seed)
	if a.Raised > 0 {
		line("epoch", "raised to %d in the middle, every process killed", a.Raised)
	}
	line("proposals", "%d in %v: %d granted, %d lost (%.1f %%), of these %d to a vehicle that was held", t.Proposals, a.Ridden.Round(time.Second),
		t.Granted, t.Lost, 100*a.LostShare(), t.LostToHeld)
	line("rides", "%d of %d riders for %d vehicles, with %d bindings of which %d ended before their ride", t.Rides, a.Options.Riders, a.Options.Vehicles, t.Bindings, t.Unbound)
	kinds := make([]string, 0, len(t.Ended))
	for kind, n := range t.Ended {
		kinds = append(kinds, fmt.Sprintf("%s %d", strings.ToLower(strings.TrimPrefix(kind.String(), "RIDE_EVENT_KIND_")), n))
	}
	slices.Sort(kinds)
	line("ended", "%s", strings.Join(kinds, ", "))
	line("ride-requests", "%d requests, %d cancellations, %d acts of drivers", t.Requests, t.Cancellations, t.DriverActs)
	line("rides' log", "%d takeovers, %d events that count, %d void records", t.Takeovers, t.Events, t.Void)
	line("locations", "%d releases, %d parts of restatements", t.Releases, t.Restatements)
	line("subscribers", "were sent %d events; of %d rides a loss was announced", t.Heard, a.Partial)
	if a.Options.Followers > 0 {
		line("followers", "%d at %d nodes saw %d rides to their end over %d connections: %d events came late, %d losses were announced, %d positions", a.Options.Followers,
			a.Options.Owners, t.Followed, t.Connections, t.Resumed, t.Snapshots, t.Positions)
		line("append to follower", "%v", a.Live)
	}
	line("histories of rides", "%s", a.RideHistories)
	line("histories of vehicles", "%s", a.VehicleHistories)
	if a.OK() {
		line("result", "no vehicle with two rides, no ride with two vehicles, no ride forgotten, each ended")
	} else {
		b.WriteString(a.Findings.String())
		line("result", "OFF (repeat with -seed %d)", a.Options.Seed)
	}
	return b.String()
}
