package fleettest

import (
	"context"

	"google.golang.org/protobuf/proto"

	pb "github.com/starling-fleet/starling/schemas/starlingv1"
)

// Calls are all calls of a dispatcher, each with any bytes as its request; streams are
// left after their first answer. The last is WatchVehicleCounts.
func Calls(c pb.FleetServiceClient) []func(context.Context, []byte) error {
	return []func(context.Context, []byte) error{
		asked(&pb.SearchNearestRequest{}, func(ctx context.Context, r *pb.SearchNearestRequest) error {
			_, err := c.SearchNearest(ctx, r)
			return err
		}),
		asked(&pb.SearchAreaRequest{}, func(ctx context.Context, r *pb.SearchAreaRequest) error {
			_, err := c.SearchArea(ctx, r)
			return err
		}),
		asked(&pb.GetVehicleRequest{}, func(ctx context.Context, r *pb.GetVehicleRequest) error {
			_, err := c.GetVehicle(ctx, r)
			return err
		}),
		asked(&pb.ListVehiclesRequest{}, func(ctx context.Context, r *pb.ListVehiclesRequest) error {
			_, err := c.ListVehicles(ctx, r)
			return err
		}),
		asked(&pb.CountVehiclesRequest{}, func(ctx context.Context, r *pb.CountVehiclesRequest) error {
			_, err := c.CountVehicles(ctx, r)
			return err
		}),
		asked(&pb.WatchVehicleRequest{}, func(ctx context.Context, r *pb.WatchVehicleRequest) error {
			s, err := c.WatchVehicle(ctx, r)
			return first(s, err)
		}),
		asked(&pb.WatchAreaRequest{}, func(ctx context.Context, r *pb.WatchAreaRequest) error {
			s, err := c.WatchArea(ctx, r)
			return first(s, err)
		}),
		asked(&pb.WatchVehicleCountsRequest{}, func(ctx context.Context, r *pb.WatchVehicleCountsRequest) error {
			s, err := c.WatchVehicleCounts(ctx, r)
			return first(s, err)
		}),
	}
}

// asked sends what bytes decode to, if they decode to a request at all.
func asked[M proto.Message](kind M, call func(context.Context, M) error) func(context.Context, []byte) error {
	return func(ctx context.Context, b []byte) error {
		req := kind.ProtoReflect().New().Interface().(M)
		if proto.Unmarshal(b, req) != nil {
			return nil
		}
		return call(ctx, req)
	}
}

func first[A any](s interface{ Recv() (A, error) }, err error) error {
	if err == nil {
		_, err = s.Recv()
	}
	return err
}
