package fanout

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/matcher/query"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// pageBytes is about how large the vehicles of one message may become; gRPC
// clients refuse 4 MiB by default.
const pageBytes = 3 << 20

const namePrefix = limits.VehicleNamePrefix

// part is what one matcher returned of something that has a key by which all parts
// are sorted.
type part[T any] struct {
	items []T
	// more is true if there is more behind the key upTo.
	more bool
	upTo string
}

// mergeSorted puts parts into one list in the order of the keys, as far as all parts
// have been returned. Of two with the same key join makes one. If there may be more,
// next is the key to go on behind.
func mergeSorted[T any](parts []part[T], key func(T) string, join func(a, b T) T) (items []T, next string) {
	more := false
	for _, p := range parts {
		if p.more && (!more || p.upTo < next) {
			more, next = true, p.upTo
		}
	}
	var all []T
	for _, p := range parts {
		for _, item := range p.items {
			if !more || key(item) <= next {
				all = append(all, item)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b T) int { return cmp.Compare(key(a), key(b)) })
	for _, item := range all {
		if n := len(items); n > 0 && key(items[n-1]) == key(item) {
			items[n-1] = join(items[n-1], item)
			continue
		}
		items = append(items, item)
	}
	return items, next
}

// truncate shortens a list to n items of at most pageBytes, and returns where it ends if
// it had to.
func truncate[T any](items []T, next string, n int, key func(T) string, size func(T) int) ([]T, string) {
	bytes := 0
	for i := range items {
		if bytes += size(items[i]); i == n || i > 0 && bytes > pageBytes {
			return items[:i], key(items[i-1])
		}
	}
	return items, next
}

func vehicleKey(v *starlingv1.Vehicle) string { return strings.TrimPrefix(v.GetName(), namePrefix) }

func vehicleSize(v *starlingv1.Vehicle) int { return proto.Size(v) + 4 }

func later(a, b *starlingv1.Vehicle) *starlingv1.Vehicle {
	if newer(b, a) {
		return b
	}
	return a
}

// SearchArea implements starlingv1.FleetServiceServer. Where matchers had more
// to return than fits, the total may count a vehicle twice that is crossing a
// border.
func (f *Fanout) SearchArea(caller context.Context, req *starlingv1.SearchAreaRequest) (*starlingv1.SearchAreaResponse, error) {
	ctx, end, err := f.begin(caller)
	if err != nil {
		return nil, err
	}
	defer end()
	answers, err := gather(ctx, f, f.all(), func(ctx context.Context, c starlingv1.FleetServiceClient) (*starlingv1.SearchAreaResponse, error) {
		return c.SearchArea(ctx, req)
	})
	if err != nil {
		return nil, failed(caller, err)
	}
	var stale staleness
	parts := make([]part[*starlingv1.Vehicle], len(answers))
	returned, total := 0, 0
	for i, a := range answers {
		stale.add(a.GetStalePartitions())
		n := len(a.GetVehicles())
		returned, total = returned+n, total+int(a.GetTotalCount())
		parts[i] = part[*starlingv1.Vehicle]{items: a.GetVehicles(), more: n < int(a.GetTotalCount())}
		if parts[i].more && n > 0 {
			parts[i].upTo = vehicleKey(a.GetVehicles()[n-1])
		}
	}
	vehicles, _ := mergeSorted(parts, vehicleKey, later)
	total -= repeated(answers, returned)
	want := int(req.GetMaxResults())
	if want == 0 {
		want = 1000 // as fleet.proto states
	}
	vehicles, _ = truncate(vehicles, "", want, vehicleKey, vehicleSize)
	return &starlingv1.SearchAreaResponse{Vehicles: vehicles, TotalCount: int32(total), StalePartitions: stale.list()}, nil
}

// repeated is how many of the returned vehicles were returned before.
func repeated(answers []*starlingv1.SearchAreaResponse, returned int) int {
	names := make(map[string]struct{}, returned)
	for _, a := range answers {
		for _, v := range a.GetVehicles() {
			names[v.GetName()] = struct{}{}
		}
	}
	return returned - len(names)
}

// ListVehicles implements starlingv1.FleetServiceServer. A vehicle that crosses
// a border during a walk is on one page like any other.
func (f *Fanout) ListVehicles(caller context.Context, req *starlingv1.ListVehiclesRequest) (*starlingv1.ListVehiclesResponse, error) {
	ctx, end, err := f.begin(caller)
	if err != nil {
		return nil, err
	}
	defer end()
	answers, err := gather(ctx, f, f.all(), func(ctx context.Context, c starlingv1.FleetServiceClient) (*starlingv1.ListVehiclesResponse, error) {
		return c.ListVehicles(ctx, req)
	})
	if err != nil {
		return nil, failed(caller, err)
	}
	var stale staleness
	parts := make([]part[*starlingv1.Vehicle], len(answers))
	for i, a := range answers {
		stale.add(a.GetStalePartitions())
		parts[i].items = a.GetVehicles()
		parts[i].upTo, parts[i].more = query.PageStart(a.GetNextPageToken())
	}
	vehicles, next := mergeSorted(parts, vehicleKey, later)
	size := int(req.GetPageSize())
	if size == 0 {
		size = 1000
	}
	vehicles, next = truncate(vehicles, next, size, vehicleKey, vehicleSize)
	out := &starlingv1.ListVehiclesResponse{Vehicles: vehicles, StalePartitions: stale.list()}
	if next != "" {
		out.NextPageToken = query.PageToken(next)
	}
	return out, nil
}

// CountVehicles implements starlingv1.FleetServiceServer. A matcher counts
// nobody who has left its region, so while matchers are not equally far, a
// vehicle that crosses a border counts twice or not at all.
func (f *Fanout) CountVehicles(caller context.Context, req *starlingv1.CountVehiclesRequest) (*starlingv1.CountVehiclesResponse, error) {
	ctx, end, err := f.begin(caller)
	if err != nil {
		return nil, err
	}
	defer end()
	answers, err := gather(ctx, f, f.all(), func(ctx context.Context, c starlingv1.FleetServiceClient) (*starlingv1.CountVehiclesResponse, error) {
		return c.CountVehicles(ctx, req)
	})
	if err != nil {
		return nil, failed(caller, err)
	}
	var stale staleness
	parts := make([]part[*starlingv1.CellCount], len(answers))
	for i, a := range answers {
		stale.add(a.GetStalePartitions())
		parts[i].items = a.GetCells()
		parts[i].upTo, parts[i].more = query.CountPageStart(a.GetNextPageToken())
	}
	key := func(c *starlingv1.CellCount) string { return c.GetH3Cell() }
	cells, next := mergeSorted(parts, key, sum)
	size := int(req.GetPageSize())
	if size == 0 {
		size = 1000
	}
	cells, next = truncate(cells, next, size, key, func(c *starlingv1.CellCount) int { return proto.Size(c) + 4 })
	out := &starlingv1.CountVehiclesResponse{Cells: cells, StalePartitions: stale.list()}
	if next != "" {
		out.NextPageToken = query.CountPageToken(next)
	}
	return out, nil
}

// sum is what two regions have of a cell, one of the coarse ones that a border
// goes through.
func sum(a, b *starlingv1.CellCount) *starlingv1.CellCount {
	a.TotalCount += b.GetTotalCount()
	a.FreeCount += b.GetFreeCount()
	a.ReservedCount += b.GetReservedCount()
	a.OnRideCount += b.GetOnRideCount()
	a.OfflineCount += b.GetOfflineCount()
	a.UnstatedCount += b.GetUnstatedCount()
	a.BusyCount += b.GetBusyCount()
	a.DispatchableCount += b.GetDispatchableCount()
	return a
}
