package freshness_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/fleettest"
	"github.com/starling-fleet/starling/internal/freshness"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

func TestShownAfterTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fleettest.Server{ConsumeDelay: 300 * time.Millisecond}
		conn, stop, err := s.Start()
		require.NoError(t, err)
		defer stop()
		p := freshness.New(conn, []string{"a", "b"})
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- p.Run(ctx) }()

		ingest := starlingv1.NewIngestServiceClient(conn)
		send := func(vehicle string, sequence, deviceTimeMS int64) {
			p.Sent(vehicle, deviceTimeMS, time.Now())
			_, err := ingest.SendReport(ctx, &starlingv1.SendReportRequest{Report: &starlingv1.Report{
				VehicleId: vehicle, SessionId: 1, Sequence: sequence, Fixes: []*starlingv1.Fix{{DeviceTimeMs: deviceTimeMS, Latitude: 1, Longitude: 1}},
			}})
			require.NoError(t, err)
		}
		send("a", 1, 1000)
		send("unwatched", 1, 1000)
		time.Sleep(100 * time.Millisecond)
		send("a", 2, 2000)
		send("a", 3, 1500) // not the newest: it does not show
		require.Equal(t, 2, p.Waiting())
		time.Sleep(time.Second)
		require.Zero(t, p.Waiting())
		shown := p.Shown()
		require.EqualValues(t, 2, shown.Count)
		require.GreaterOrEqual(t, shown.P50, 300*time.Millisecond)
		require.Less(t, shown.Max, 320*time.Millisecond)
		require.True(t, p.Watches("b") && !p.Watches("unwatched"))

		p.Sent("b", 1000, time.Now()) // never reaches the fleet
		require.Equal(t, 1, p.Waiting())
		cancel()
		require.NoError(t, <-ran)
	})
}
