package matcher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/starling-fleet/starling/fanout/region"
	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// A matcher that is limited to a region reads all of `tracks` and keeps
//
//   - the vehicles whose newest view lies in its region or has no position;
//   - those that have left it, in their newest view wherever that lies, until
//     the partition's clock has moved on by the grace since they left.
//
// What it keeps is thus a function of what it has read. Whoever asks several of
// them finds a vehicle that crosses a border with at least one, although one may
// have read further than the other, because the grace is longer than a matcher
// can be behind without naming the partition as stale; package fanout has the
// argument.

// graceRoom is how much longer than StaleAfter a vehicle that has left is kept
// at least: for the longest time that a fan-out waits for its answers, 5 s, and
// for clocks of machines that disagree.
const graceRoom = 15 * time.Second

// residence says which vehicles a matcher keeps. A nil residence keeps all.
type residence struct {
	regions *region.Map
	own     int
	graceMS int64
}

// departures are the vehicles of one partition that have left the region and are
// still kept. They belong to Run.
type departures struct {
	left  map[string]int64 // the stream time when a vehicle left
	queue []departure      // by stream time; some have come back since
}

type departure struct {
	id     string
	leftMS int64
}

// residence returns what the configuration describes, nil if the matcher is not
// limited.
func (c Config) residence() (*residence, error) {
	if c.Region == "" {
		return nil, nil //nolint:nilnil // nil keeps all
	}
	regions, err := region.Parse(c.Regions)
	if err != nil {
		return nil, fmt.Errorf("regions: %w", err)
	}
	own := regions.Number(c.Region)
	if own < 0 {
		return nil, fmt.Errorf("region: %q is not one of regions, which has %s", c.Region, strings.Join(regions.Names(), ", "))
	}
	return &residence{regions, own, c.RegionGrace.Milliseconds()}, nil
}

func (c Config) validateRegion() error {
	var errs []error
	_, err := c.residence()
	if c.Region == "" && len(c.Regions) > 0 {
		_, err = region.Parse(c.Regions)
		if err != nil {
			err = fmt.Errorf("regions: %w", err)
		}
	}
	errs = append(errs, err)
	if c.Region != "" && c.RegionGrace < c.StaleAfter+graceRoom {
		errs = append(errs, fmt.Errorf("region_grace: %v, must be at least %v longer than stale_after, which is %v", c.RegionGrace, graceRoom, c.StaleAfter))
	}
	if c.Region != "" && c.RebuildWindow != 0 && c.RebuildWindow < 2*c.RegionGrace {
		errs = append(errs, fmt.Errorf("rebuild_window: %v, must be 0 or at least twice region_grace, which is %v", c.RebuildWindow, c.RegionGrace))
	}
	return errors.Join(errs...)
}

// wants says whether a view is to be put into the index, and whether it lies in
// the region.
func (m *Matcher) wants(p *partition, v *wire.View) (wanted, here bool) {
	r := m.resident
	if r == nil || v.DeviceTimeMS == 0 || r.regions.Of(h3.Cell(v.Cell), v.LatDeg, v.LonDeg) == r.own {
		return true, true
	}
	if _, leaving := p.departures.left[v.VehicleID]; leaving {
		return true, false
	}
	return m.index.Has(v.VehicleID), false
}

// note remembers that a vehicle has left or come back.
func (d *departures) note(id string, here bool, clockMS int64) {
	_, leaving := d.left[id]
	switch {
	case here && leaving:
		delete(d.left, id)
	case !here && !leaving:
		one := departure{strings.Clone(id), clockMS}
		if d.left == nil {
			d.left = map[string]int64{}
		}
		d.left[one.id] = one.leftMS
		d.queue = append(d.queue, one)
	}
}

// shift moves all times when the stream time has jumped back.
func (d *departures) shift(ms int64) {
	for id := range d.left {
		d.left[id] += ms
	}
	for i := range d.queue {
		d.queue[i].leftMS += ms
	}
}

// dropDeparted forgets the vehicles whose grace is over.
func (m *Matcher) dropDeparted(p *partition) {
	d, n := &p.departures, 0
	for ; n < len(d.queue) && d.queue[n].leftMS+m.resident.graceMS <= p.streamMS.Load(); n++ {
		one := d.queue[n]
		if leftMS, leaving := d.left[one.id]; leaving && leftMS == one.leftMS {
			delete(d.left, one.id)
			m.index.Remove(one.id)
		}
	}
	if n > 0 {
		d.queue = slices.Delete(d.queue, 0, n)
	}
}

// residents is a change as it counts for the region: who is elsewhere does not.
func (r *residence) residents(c *liveindex.Change) *liveindex.Change {
	if r == nil {
		return c
	}
	here := func(at geo.Vec, cell h3.Cell) bool {
		if at == (geo.Vec{}) {
			return false
		}
		lat, lon := at.Degrees()
		return r.regions.Of(cell, lat, lon) == r.own
	}
	out := *c
	if !here(c.From, c.Old.Cell) {
		out.From, out.Old = geo.Vec{}, liveindex.Standing{}
	}
	if !here(c.To, c.New.Cell) {
		out.To, out.New = geo.Vec{}, liveindex.Standing{}
	}
	return &out
}

// RegionOptions are the further options of the gRPC server of a matcher that is
// limited to a region; nil for others. They refuse callers that do not say which
// region they take it to keep.
func (m *Matcher) RegionOptions() []grpc.ServerOption {
	if m.resident == nil {
		return nil
	}
	label := m.resident.regions.Label(m.resident.own)
	fleet := "/" + starlingv1.FleetService_ServiceDesc.ServiceName + "/"
	check := func(ctx context.Context, method string) error {
		if !strings.HasPrefix(method, fleet) {
			return nil
		}
		said := metadata.ValueFromIncomingContext(ctx, region.Header)
		switch {
		case len(said) == 0:
			return statusError(codes.FailedPrecondition, reasonRegionMismatch, "this matcher knows region "+label+" only: ask the fan-out, which knows the fleet")
		case said[0] != label:
			return statusError(codes.FailedPrecondition, reasonRegionMismatch, "this matcher keeps region "+label+", the caller takes it for "+said[0]+": let all processes have the same matcher.regions")
		}
		return nil
	}
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if err := check(ctx, info.FullMethod); err != nil {
				return nil, err
			}
			return handler(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			if err := check(stream.Context(), info.FullMethod); err != nil {
				return err
			}
			return handler(srv, stream)
		}),
	}
}

// unknown says that a vehicle is not known. Where the matcher keeps a region and
// the vehicle's partition is stale, that proves nothing: it may have come in
// since, and have been dropped elsewhere.
func (m *Matcher) unknown(name, id string) error {
	if m.resident != nil {
		if s, stale := m.staleness(m.partitionOf(id), m.now().UnixMilli()); stale {
			return statusError(codes.Unavailable, reasonStale, fmt.Sprintf("%s is not known here, but its partition %d is stale", name, s.number), retryInfo())
		}
	}
	return notFound(name)
}
