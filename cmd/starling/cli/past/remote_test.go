package past_test

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/starling-fleet/starling/cmd/starling/cli/past"
	"github.com/starling-fleet/starling/history/query"
	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/history/store/storetest"
	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// What a store answers comes through the service and the commands' client as it is.
func TestTheServiceAnswersAsItsStore(t *testing.T) {
	storetest.RunThrough(t, func(s store.Store) storetest.Answers {
		service, err := query.New(query.DefaultConfig(), query.Deps{Store: s, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		precise := &auth.Caller{Issuer: "i", Subject: "s", Scopes: auth.HistoryPrecise}
		server := grpc.NewServer(append(query.ServerOptions(), grpc.StreamInterceptor(func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			return handler(srv, &as{s, precise})
		}))...)
		service.Register(server)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		go func() { _ = server.Serve(l) }()
		t.Cleanup(server.Stop)
		conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return past.NewRemote(starlingv1.NewHistoryServiceClient(conn))
	}, func(f *row.Fix) {
		f.Has &^= row.HasArrival
		f.Epoch, f.Partition, f.SourceOffset, f.Session, f.Sequence, f.ArrivalOffset, f.Rule = 0, 0, 0, 0, 0, 0, 0
	})
}

// as is a stream of a caller.
type as struct {
	grpc.ServerStream
	caller *auth.Caller
}

func (a *as) Context() context.Context { return auth.WithCaller(a.ServerStream.Context(), a.caller) }
