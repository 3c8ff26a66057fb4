package overload

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/internal/replay"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Account compares what was acknowledged to clients with what the fleet counts. Every fix
// is its vehicle's only one with its device time, so that each counts once as
// new (accepted, or late), and every copy of it as a duplicate.
type Account struct {
	// Acknowledged are different good fixes that were acknowledged.
	Acknowledged int64 `json:"acknowledged"`
	// Unconfirmed are good fixes that clients that do not read sent and never learnt of: the
	// log may hold them.
	Unconfirmed int64 `json:"unconfirmed"`
	// Copies are fixes that were sent again on purpose and acknowledged; the
	// log holds them twice. Resent were sent again after a broken
	// stream; it may hold them twice.
	Copies int64 `json:"copies"`
	Resent int64 `json:"resent"`
	// What the fleet counts.
	New        int64 `json:"new"`
	Duplicates int64 `json:"duplicates"`
	Conflicts  int64 `json:"conflicts"`
}

// faults names the sums that do not agree.
func (a Account) faults() (faults []string) {
	if a.New < a.Acknowledged || a.New > a.Acknowledged+a.Unconfirmed {
		faults = append(faults, fmt.Sprintf("the fleet counts %d new fixes; %d were acknowledged and %d may be there", a.New, a.Acknowledged, a.Unconfirmed))
	}
	if a.Duplicates < a.Copies || a.Duplicates > a.Copies+a.Resent {
		faults = append(faults, fmt.Sprintf("the fleet counts %d duplicates; %d fixes were sent twice and up to %d more", a.Duplicates, a.Copies, a.Resent))
	}
	if a.Conflicts != 0 {
		faults = append(faults, fmt.Sprintf("the fleet counts %d conflicts, and no two fixes were in conflict", a.Conflicts))
	}
	return faults
}

// counts sums up what the fleet counts, without the vehicles of the
// calibration.
func (a *Account) counts(ctx context.Context, conn grpc.ClientConnInterface) error {
	a.New, a.Duplicates, a.Conflicts = 0, 0, 0
	return replay.ListFleet(ctx, starlingv1.NewFleetServiceClient(conn), func(v *starlingv1.Vehicle) {
		if strings.HasPrefix(v.GetName(), limits.VehicleNamePrefix+calibrationPrefix) {
			return
		}
		c := v.GetFixCounts()
		a.New += c.GetAccepted() + c.GetLate()
		a.Duplicates += c.GetDuplicate()
		a.Conflicts += c.GetConflict()
	})
}

// settle waits until the fleet has counted everything that was acknowledged and
// its counts have stood still for a second with no partition stale, or until
// nothing has changed for timeout. It reports whether it has settled.
func (a *Account) settle(ctx context.Context, conn grpc.ClientConnInterface, timeout time.Duration) (settled bool, err error) {
	const still = 2 * time.Second
	changed := time.Now()
	for {
		before := *a
		if err := a.counts(ctx, conn); err != nil {
			return false, err
		}
		if *a != before {
			changed = time.Now()
		}
		behind, err := stale(ctx, conn)
		if err != nil {
			return false, err
		}
		quiet := time.Since(changed)
		if quiet >= still && behind == 0 && a.New >= a.Acknowledged {
			return true, nil
		}
		if quiet >= timeout {
			return false, nil
		}
		if err := retry.Sleep(ctx, 250*time.Millisecond); err != nil {
			return false, err
		}
	}
}

// stale is how many partitions the fleet calls stale.
func stale(ctx context.Context, conn grpc.ClientConnInterface) (int, error) {
	page, err := starlingv1.NewFleetServiceClient(conn).ListVehicles(ctx, &starlingv1.ListVehiclesRequest{PageSize: 1})
	if err != nil {
		return 0, fmt.Errorf("list the fleet: %w", err)
	}
	return len(page.GetStalePartitions()), nil
}
