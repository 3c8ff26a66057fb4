package fanout

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// GetVehicle implements starlingv1.FleetServiceServer. All regions are asked. A
// vehicle that one of them knows is returned though others cannot answer; that
// it is not known needs all of them, none stale in its partition.
func (f *Fanout) GetVehicle(caller context.Context, req *starlingv1.GetVehicleRequest) (*starlingv1.Vehicle, error) {
	ctx, end, err := f.begin(caller)
	if err != nil {
		return nil, err
	}
	defer end()
	found := make([]*starlingv1.Vehicle, len(f.groups))
	errs := make([]error, len(f.groups))
	var asked sync.WaitGroup
	for number := range f.groups {
		asked.Go(func() {
			found[number], errs[number] = askRegion(ctx, f, number, func(ctx context.Context, c starlingv1.FleetServiceClient) (*starlingv1.Vehicle, error) {
				return c.GetVehicle(ctx, req)
			})
		})
	}
	asked.Wait()
	var out *starlingv1.Vehicle
	var notFound error
	for number, err := range errs {
		switch {
		case err == nil:
			if out == nil || newer(found[number], out) {
				out = found[number]
			}
		case notFound == nil || status.Code(err) != codes.NotFound:
			notFound = err
		}
	}
	if out != nil {
		return out, nil
	}
	return nil, failed(caller, notFound)
}
