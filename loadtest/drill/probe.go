package drill

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/loadtest/drill/check"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// probe reads single vehicles from a matcher all the time, and from the next one
// when it does not answer. A matcher that serves before it has caught up shows as a
// vehicle that goes back in time.
type probe struct {
	matchers []*watchedMatcher
	rng      *rand.Rand
	vehicles int

	findings check.Findings
	answers  int64
	longest  time.Duration // without an answer
	oldest   time.Duration // age of the newest report of a vehicle, beyond its period
	// oldestFix is the longest time for which an honest vehicle was served where
	// a fix that was no longer its newest, or of another device, has it. It is
	// only measured where clocks are set wrong; seen times may then go back.
	oldestFix   time.Duration
	wrongClocks bool
	period      time.Duration // between two reports of a vehicle
}

// watchedMatcher is a matcher and what it has served.
type watchedMatcher struct {
	fleet starlingv1.FleetServiceClient
	seen  map[string]seen
}

// seen is the newest state of a vehicle that a matcher has served.
type seen struct {
	atMS  int64
	fixes int64
}

func newProbe(o *Options, matchers []grpc.ClientConnInterface) *probe {
	p := &probe{
		rng: rand.New(rand.NewPCG(o.Seed, 1<<33)), vehicles: o.vehicles(),
		wrongClocks: o.LogClock != nil,
		period:      time.Duration(float64(o.FixInterval) * float64(o.FixesPerReport) / o.Speed),
	}
	for _, m := range matchers {
		p.matchers = append(p.matchers, &watchedMatcher{starlingv1.NewFleetServiceClient(m), map[string]seen{}})
	}
	return p
}

// run reads until ctx is done.
func (p *probe) run(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var answered time.Time
	for at := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		id := fmt.Sprintf("drill-%05d", p.rng.IntN(min(probed, p.vehicles)))
		m := p.matchers[at]
		v, err := m.fleet.GetVehicle(ctx, &starlingv1.GetVehicleRequest{Name: limits.VehicleNamePrefix + id})
		switch status.Code(err) {
		case codes.OK:
			p.noteFix(v)
			p.note(m, id, seen{v.SeenTime.AsTime().UnixMilli(), total(v.FixCounts)})
		case codes.NotFound:
			p.note(m, id, seen{})
		default:
			at = (at + 1) % len(p.matchers)
			continue
		}
		if !answered.IsZero() {
			p.longest = max(p.longest, time.Since(answered))
		}
		answered = time.Now()
		p.answers++
		if known := m.seen[id]; known.atMS > 0 {
			p.oldest = max(p.oldest, time.Since(time.UnixMilli(known.atMS))-p.period)
		}
	}
}

func (p *probe) note(m *watchedMatcher, id string, now seen) {
	before := m.seen[id]
	if now.atMS < before.atMS && !p.wrongClocks || now.fixes < before.fixes {
		p.findings.Add("a matcher that served a state older than one before", "%s: %d fixes at %d ms after %d fixes at %d ms", id, now.fixes, now.atMS, before.fixes, before.atMS)
	}
	m.seen[id] = now
}

// noteFix measures how old the newest fix of a served vehicle is, by this
// process's clock, which is right.
func (p *probe) noteFix(v *starlingv1.Vehicle) {
	if p.wrongClocks && v.DeviceTime != nil {
		age := time.Since(v.DeviceTime.AsTime())
		p.oldestFix = max(p.oldestFix, age-p.period, -age)
	}
}

func total(c *starlingv1.FixCounts) int64 {
	return c.GetAccepted() + c.GetDuplicate() + c.GetConflict() + c.GetLate() + c.GetSetAside()
}

// settled waits until the fleet has consumed everything and returns it: nothing
// is stale, and what is served does not change for some seconds. (A tracker
// that is behind makes its partitions stale, since an idle partition is ticked
// every second.)
func settled(ctx context.Context, conn grpc.ClientConnInterface, quiet time.Duration) (map[string]*starlingv1.Vehicle, error) {
	var before int64 = -1
	since := time.Now()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		fleet, stale, err := listFleet(ctx, conn)
		var fixes int64
		for _, v := range fleet {
			fixes += total(v.FixCounts)
		}
		if err != nil || stale > 0 || fixes != before {
			before, since = fixes, time.Now()
		} else if time.Since(since) >= quiet {
			return fleet, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the fleet does not settle: %d vehicles with %d fixes, %d stale partitions, last error: %w", len(fleet), fixes, stale, err)
		case <-tick.C:
		}
	}
}

// listFleet returns the whole fleet by vehicle id, and the number of stale
// partitions.
func listFleet(ctx context.Context, conn grpc.ClientConnInterface) (fleet map[string]*starlingv1.Vehicle, stale int, err error) {
	fleet = map[string]*starlingv1.Vehicle{}
	req := &starlingv1.ListVehiclesRequest{PageSize: 10_000}
	for {
		page, err := starlingv1.NewFleetServiceClient(conn).ListVehicles(ctx, req)
		if err != nil {
			return fleet, stale, err
		}
		stale = max(stale, len(page.StalePartitions))
		for _, v := range page.Vehicles {
			fleet[strings.TrimPrefix(v.Name, limits.VehicleNamePrefix)] = v
		}
		if req.PageToken = page.NextPageToken; req.PageToken == "" {
			return fleet, stale, nil
		}
	}
}
