package replay

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// counts are what the fleet counts of a set of vehicles' fixes, since it knows
// them.
type counts struct{ accepted, duplicate, conflict, late int64 }

func (c counts) total() int64 { return c.accepted + c.duplicate + c.conflict + c.late }

func (c counts) minus(d counts) counts {
	return counts{c.accepted - d.accepted, c.duplicate - d.duplicate, c.conflict - d.conflict, c.late - d.late}
}

func (c *counts) add(v *starlingv1.Vehicle) {
	f := v.GetFixCounts()
	c.accepted += f.GetAccepted()
	c.duplicate += f.GetDuplicate()
	c.conflict += f.GetConflict()
	c.late += f.GetLate()
}

// maxSingly is up to how many vehicles are read one by one; for more, the
// whole fleet is listed.
const maxSingly = 64

// fleetCounts sums the counts of the named vehicles. A vehicle that the fleet
// does not know counts nothing.
func fleetCounts(ctx context.Context, fleet starlingv1.FleetServiceClient, vehicles []string) (counts, error) {
	var c counts
	if len(vehicles) <= maxSingly {
		for _, id := range vehicles {
			v, err := fleet.GetVehicle(ctx, &starlingv1.GetVehicleRequest{Name: limits.VehicleNamePrefix + id})
			if status.Code(err) == codes.NotFound {
				continue
			}
			if err != nil {
				return c, fmt.Errorf("get vehicle %q: %w", id, err)
			}
			c.add(v)
		}
		return c, nil
	}
	wanted := make(map[string]bool, len(vehicles))
	for _, id := range vehicles {
		wanted[id] = true
	}
	err := ListFleet(ctx, fleet, func(v *starlingv1.Vehicle) {
		if wanted[strings.TrimPrefix(v.GetName(), limits.VehicleNamePrefix)] {
			c.add(v)
		}
	})
	return c, err
}

// ListFleet calls each for every vehicle of the live fleet, page by page.
func ListFleet(ctx context.Context, fleet starlingv1.FleetServiceClient, each func(*starlingv1.Vehicle)) error {
	token := ""
	for {
		page, err := fleet.ListVehicles(ctx, &starlingv1.ListVehiclesRequest{PageSize: 5000, PageToken: token})
		if err != nil {
			return fmt.Errorf("list the fleet: %w", err)
		}
		for _, v := range page.GetVehicles() {
			each(v)
		}
		if token = page.GetNextPageToken(); token == "" {
			return nil
		}
	}
}

// settle waits until the fleet shows want fixes more than before, and returns
// how many more it shows. When fixes were sent again, copies may follow the
// fixes that are waited for, so it waits until the numbers stand still. It gives
// up, without an error, when nothing has changed for timeout.
func settle(ctx context.Context, count func(context.Context) (counts, error), before counts, want int64, resent bool, timeout time.Duration, changed func(counts)) (delta counts, settled bool, err error) {
	const still = time.Second
	pause := 20 * time.Millisecond
	lastChange := time.Now()
	for first := true; ; first = false {
		now, err := count(ctx)
		if err != nil {
			return delta, false, err
		}
		next := now.minus(before)
		if next != delta || first {
			delta, lastChange = next, time.Now()
			changed(delta)
		}
		quiet := time.Since(lastChange)
		if delta.total() >= want && (!resent || quiet >= still) {
			return delta, true, nil
		}
		if quiet >= timeout {
			return delta, false, nil
		}
		if retry.Sleep(ctx, pause) != nil {
			return delta, false, context.Cause(ctx)
		}
		pause = min(2*pause, time.Second)
	}
}
