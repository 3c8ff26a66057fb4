package app

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestIngestAndTrackerHaveOneBoundForTimesAhead(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Ingest.Validation.MaxAhead = 3 * time.Minute
	require.ErrorContains(t, cfg.Validate(), "ingest: validation.max_ahead is 3m: must be what tracker.max_ahead is, which is 2m0s")
	cfg.Tracker.MaxAhead = 3 * time.Minute
	require.NoError(t, cfg.Validate())
}

func TestARebuildMustSeeEverySilentVehicle(t *testing.T) {
	cfg := DefaultConfig()
	require.NoError(t, cfg.Validate())
	cfg.Tracker.RepeatInterval = 45 * time.Second
	require.ErrorContains(t, cfg.Validate(), "rebuild_window is 1m30s: must be 0 or at least tracker.repeat_max_interval and tracker.repeat_interval, together 1m45s")
	cfg.Tracker.RepeatInterval = 30 * time.Second
	require.NoError(t, cfg.Validate())
	cfg.Tracker.RepeatMaxInterval = 10 * time.Minute
	require.ErrorContains(t, cfg.Validate(), "together 10m30s")
	cfg.Matcher.RebuildWindow = 0
	require.NoError(t, cfg.Validate())
}

func TestMatcherAndTrackerHaveOneAgeOfDispatch(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Matcher.DispatchMaxAge = 2 * time.Minute
	require.ErrorContains(t, cfg.Validate(), "matcher: dispatch_max_age is 2m: must be what tracker.dispatch_max_age is, which is 1m0s")
	cfg.Tracker.DispatchMaxAge = 2 * time.Minute
	require.NoError(t, cfg.Validate())
}

func TestASilentVehicleStaysInRedis(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Redis.Addrs, cfg.Redis.Positions, cfg.Redis.PositionsKeep = []string{"127.0.0.1:6379"}, true, 10*time.Second
	require.ErrorContains(t, cfg.Validate(), "redis: positions_keep is 10s: must be at least tracker.repeat_max_interval and tracker.repeat_interval")
	cfg.Redis.Positions = false
	require.NoError(t, cfg.Validate())
}
