package rides_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/rides"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// silent is the server's end of a stream that is over before it has begun.
type silent[A any] struct{ ctx context.Context }

func (s silent[A]) Context() context.Context     { return s.ctx }
func (s silent[A]) Send(*A) error                { return nil }
func (s silent[A]) SetHeader(metadata.MD) error  { return nil }
func (s silent[A]) SendHeader(metadata.MD) error { return nil }
func (s silent[A]) SetTrailer(metadata.MD)       {}
func (s silent[A]) SendMsg(any) error            { return nil }
func (s silent[A]) RecvMsg(any) error            { return context.Canceled }

var _ grpc.ServerStreamingServer[starlingv1.SubscribeRideEventsResponse] = silent[starlingv1.SubscribeRideEventsResponse]{}

func decoded[M proto.Message](kind M, b []byte) M {
	req := kind.ProtoReflect().New().Interface().(M)
	_ = proto.Unmarshal(b, req) // what can be read of it is asked for
	return req
}

// FuzzRideCalls sends any bytes as the request of any call, by callers of every
// kind: what comes back is an answer or names what is wrong, and the role goes on.
func FuzzRideCalls(f *testing.F) {
	s := start(f, memlog.NewStore(partitions, topics.All(), 0), func(c *rides.Config) { c.MaxWait = 10 * time.Millisecond })
	made, err := s.rides.NewRide(s.ctx, &starlingv1.NewRideRequest{Rider: "ann", PickupLatitude: 45, PickupLongitude: 9})
	require.NoError(f, err)
	calls := []func(context.Context, []byte) error{
		func(ctx context.Context, b []byte) error {
			_, err := s.rides.NewRide(ctx, decoded(&starlingv1.NewRideRequest{}, b))
			return err
		},
		func(ctx context.Context, b []byte) error {
			_, err := s.rides.RequestRide(ctx, decoded(&starlingv1.RequestRideRequest{}, b))
			return err
		},
		func(ctx context.Context, b []byte) error {
			_, err := s.rides.CancelRide(ctx, decoded(&starlingv1.CancelRideRequest{}, b))
			return err
		},
		func(ctx context.Context, b []byte) error {
			_, err := s.rides.ActOnRide(ctx, decoded(&starlingv1.ActOnRideRequest{}, b))
			return err
		},
		func(ctx context.Context, b []byte) error {
			_, err := s.rides.GetRide(ctx, decoded(&starlingv1.GetRideRequest{}, b))
			return err
		},
		func(ctx context.Context, b []byte) error {
			_, err := s.rides.ListRides(ctx, decoded(&starlingv1.ListRidesRequest{}, b))
			return err
		},
		func(ctx context.Context, b []byte) error {
			ended, cancel := context.WithCancel(ctx)
			cancel()
			return s.rides.SubscribeRideEvents(decoded(&starlingv1.SubscribeRideEventsRequest{}, b), silent[starlingv1.SubscribeRideEventsResponse]{ended})
		},
		func(ctx context.Context, b []byte) error {
			ended, cancel := context.WithCancel(ctx)
			cancel()
			return s.rides.SubscribeVehicleEvents(decoded(&starlingv1.SubscribeVehicleEventsRequest{}, b), silent[starlingv1.SubscribeVehicleEventsResponse]{ended})
		},
	}
	callers := []*auth.Caller{
		{}, {Scopes: auth.Dispatch}, {Issuer: "us", Subject: "ann", Scopes: auth.Rider}, {Issuer: "us", Subject: "phone", Scopes: auth.Report, Vehicle: "car"},
	}
	for i, req := range []proto.Message{
		&starlingv1.NewRideRequest{Rider: "ann", PickupLatitude: 45}, &starlingv1.RequestRideRequest{Name: made.Name, Order: order("ann")},
		&starlingv1.CancelRideRequest{Name: made.Name, Rider: "ann"}, &starlingv1.ActOnRideRequest{Name: made.Name, Vehicle: "vehicles/car", Attempt: &starlingv1.Attempt{}, Action: 1},
		&starlingv1.GetRideRequest{Name: made.Name, After: &starlingv1.RidePosition{Offset: 1 << 60}}, &starlingv1.ListRidesRequest{PageToken: made.Name, PageSize: 1},
		&starlingv1.SubscribeRideEventsRequest{Name: made.Name, AfterSequence: 1}, &starlingv1.SubscribeVehicleEventsRequest{Name: "vehicles/car"},
	} {
		b, err := proto.Marshal(req)
		require.NoError(f, err)
		f.Add(byte(i), byte(1), b)
	}
	f.Fuzz(func(t *testing.T, which, who byte, b []byte) {
		err := calls[int(which)%len(calls)](auth.WithCaller(context.Background(), callers[int(who)%len(callers)]), b)
		switch status.Code(err) {
		case codes.OK, codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.AlreadyExists, codes.DeadlineExceeded, codes.Canceled, codes.ResourceExhausted:
		default:
			t.Fatal(err)
		}
		if _, err := s.rides.ListRides(s.ctx, &starlingv1.ListRidesRequest{}); err != nil {
			t.Fatalf("the role is not what it was: %v", err)
		}
	})
}
