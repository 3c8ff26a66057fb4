package app

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestUnitsStopInReverseOrderEachAfterTheOneBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		stop := func(name string) unit {
			return unit{name: name, run: func(ctx context.Context) error {
				<-ctx.Done()
				order = append(order, name)
				return nil
			}}
		}
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error)
		go func() {
			result <- runUnits(ctx, slog.New(slog.DiscardHandler), []unit{stop("matcher"), stop("tracker"), stop("ingest")})
		}()
		synctest.Wait()
		require.Empty(t, order)
		cancel()
		require.NoError(t, <-result)
		require.Equal(t, []string{"ingest", "tracker", "matcher"}, order)
	})
}

func TestAFailedUnitStopsTheOthersAndIsNamed(t *testing.T) {
	broken := errors.New("disk on fire")
	stopped := false
	err := runUnits(t.Context(), slog.New(slog.DiscardHandler), []unit{
		{name: "tracker", run: func(context.Context) error { return broken }},
		{name: "ingest", run: func(ctx context.Context) error { <-ctx.Done(); stopped = true; return nil }},
	})
	require.ErrorIs(t, err, broken)
	require.ErrorContains(t, err, "tracker")
	require.True(t, stopped)
}
