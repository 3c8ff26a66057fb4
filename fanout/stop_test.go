package fanout_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/fanout"
	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// slowMatcher answers a search for one vehicle when it is released.
type slowMatcher struct {
	starlingv1.UnimplementedFleetServiceServer
	asked, release chan struct{}
}

func (s slowMatcher) SearchNearest(_ context.Context, req *starlingv1.SearchNearestRequest) (*starlingv1.SearchNearestResponse, error) {
	if req.MaxResults == 1 {
		close(s.asked)
		<-s.release
	}
	return &starlingv1.SearchNearestResponse{Results: []*starlingv1.NearbyVehicle{{Vehicle: &starlingv1.Vehicle{Name: "vehicles/a"}}}}, nil
}

// A search that is open when the fan-out stops is answered; those that come
// later are answered that it has stopped.
func TestOpenSearchesAreAnsweredAtAStop(t *testing.T) {
	n, slow := &network{}, slowMatcher{asked: make(chan struct{}), release: make(chan struct{})}
	one := grpc.NewServer()
	starlingv1.RegisterFleetServiceServer(one, slow)
	cfg := fanout.DefaultConfig()
	cfg.Replicas, cfg.Timeout = []string{"all=" + westAddress}, 5*time.Second
	n.serve(t, westAddress, one)
	estimator, err := matcher.DefaultConfig().ETA.Estimator()
	require.NoError(t, err)
	f, err := fanout.New(cfg, fanout.Deps{
		Regions:     []string{"all=rest"},
		Estimator:   estimator,
		Registerer:  prometheus.NewRegistry(),
		Logger:      slog.New(slog.DiscardHandler),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(n.dial)},
	})
	require.NoError(t, err)
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- f.Run(running) }()

	type result struct {
		found *starlingv1.SearchNearestResponse
		err   error
	}
	search := func(n int32) (r result) {
		r.found, r.err = f.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: &starlingv1.Place{}, MaxResults: n})
		return r
	}
	open := make(chan result, 1)
	go func() { open <- search(1) }()
	select {
	case <-slow.asked:
	case r := <-open:
		t.Fatalf("the search was not held: %v", r.err)
	}
	stop()
	stopped := func() bool {
		r := search(2)
		if status.Code(r.err) != codes.Unavailable {
			return false
		}
		for _, d := range status.Convert(r.err).Details() {
			if info, ok := d.(*errdetails.ErrorInfo); ok {
				return info.Reason == "STOPPED"
			}
		}
		return false
	}
	require.Eventually(t, stopped, 10*time.Second, time.Millisecond)
	select {
	case <-ended:
		t.Fatal("Run has ended with a search open")
	default:
	}
	close(slow.release)
	r := <-open
	require.NoError(t, r.err)
	require.Len(t, r.found.Results, 1)
	require.NoError(t, <-ended)
	require.True(t, stopped())
}
