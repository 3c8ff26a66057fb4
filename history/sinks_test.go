package history_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/history"
	"github.com/starling-fleet/starling/history/clickhouse"
	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/internal/clickhousetest"
	"github.com/starling-fleet/starling/internal/config"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

var clickhouseSpec = eventlog.OwnSpec{Group: "starling-history-clickhouse", Source: topics.Tracks, State: topics.HistoryState}

// startBoth is start with both sinks; a nil sink is the configured one.
func startBoth(t *testing.T, log *memlog.Store, cfg history.Config, lakeSink, other history.Sink) *process {
	t.Helper()
	p := &process{registry: prometheus.NewRegistry(), log: memlog.Open(log, memlog.Options{}), ended: make(chan error, 1)}
	h, err := history.New(cfg, history.Deps{Log: p.log, Registerer: p.registry, Logger: slog.New(slog.DiscardHandler), Lake: lakeSink, ClickHouse: other})
	require.NoError(t, err)
	var ctx context.Context
	ctx, p.stop = context.WithCancel(context.Background())
	go func() { p.ended <- h.Run(ctx) }()
	return p
}

// A sink that is dead, until its records are given up, holds up neither the other nor
// the log: the lake has everything at once, the gap of the dead one is on record when
// it is back.
func TestADeadSinkHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memlog.NewStore(partitions, topics.All(), time.Minute)
		cfg := twoSinks()
		cfg.MaxLag = 10 * time.Minute
		kept := 0
		for _, fixes := range fleet(t, log, 1, 60) {
			kept += len(fixes)
		}
		live := &refusing{gaps: make(chan *starlingv1.HistoryGap)}
		dead := &refusing{gaps: make(chan *starlingv1.HistoryGap, 100)}
		dead.refuses.Store(true)
		p := startBoth(t, log, cfg, live, dead)
		began := time.Now()
		settledBy(t, log, spec)
		require.Less(t, time.Since(began), time.Minute)
		require.GreaterOrEqual(t, int(live.rows.Load()), kept)
		_, resume := log.State(clickhouseSpec, 0)
		require.LessOrEqual(t, resume, int64(0))
		alarmtest.Raised(t, p.registry, `starling_history_write_failures_total{sink="clickhouse"}`)
		failed, _ := alarmtest.Value(t, p.registry, `starling_history_write_failures_total{sink="lake"}`)
		require.Zero(t, failed)

		settledBy(t, log, clickhouseSpec) // given up
		alarmtest.Raised(t, p.registry, `starling_history_gaps_total{sink="clickhouse"}`)
		dead.refuses.Store(false)
		fleet(t, log, 1, 60)
		settledBy(t, log, clickhouseSpec)
		require.Len(t, dead.gaps, partitions)
		require.Positive(t, dead.rows.Load())
		gaps, _ := alarmtest.Value(t, p.registry, `starling_history_gaps_total{sink="lake"}`)
		require.Zero(t, gaps)
		p.end(t)
	})
}

// twoSinks sets short batches for both sinks.
func twoSinks() history.Config {
	cfg := settings()
	cfg.ClickHouseBatchMaxRows, cfg.ClickHouseBatchInterval = 60, 50*time.Millisecond
	return cfg
}

// engine names a server with history's tables.
func engine(t *testing.T) (*clickhousetest.Server, history.Config) {
	t.Helper()
	s := clickhousetest.Start(t)
	cfg := twoSinks()
	cfg.ClickHouse.Addrs, cfg.ClickHouse.Username, cfg.ClickHouse.Password = []string{s.Addr()}, clickhousetest.User, config.Secret(clickhousetest.Password)
	cfg.ClickHouse.RollupInterval = time.Second
	cfg.ClickHouseBatchInterval = time.Second
	_, err := clickhouse.Migrate(t.Context(), cfg.ClickHouse)
	require.NoError(t, err)
	return s, cfg
}

func requireClickHouse(t *testing.T, cfg clickhouse.Config, want map[string][]row.Fix) {
	t.Helper()
	s, err := clickhouse.NewStore(cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	for vehicle, fixes := range want {
		var got []row.Fix
		for f, err := range s.Track(t.Context(), store.TrackQuery{Vehicle: vehicle, ToMS: 1 << 42}) {
			require.NoError(t, err)
			got = append(got, f)
		}
		require.Equal(t, fixes, got, vehicle)
	}
}

// ClickHouse is killed while it is written to and is away for a while, and so is the
// role; both sinks end up with every fix once.
func TestClickHouseAndTheRoleAreKilled(t *testing.T) {
	s, cfg := engine(t)
	cfg.LakeDir = filepath.Join(t.TempDir(), "lake")
	log := memlog.NewStore(partitions, topics.All(), time.Minute)
	want := fleet(t, log, 1, 400)
	sink, err := clickhouse.NewSink(cfg.ClickHouse)
	require.NoError(t, err)
	defer func() { require.NoError(t, sink.Close()) }()
	for nth := int32(1); nth <= 3; nth++ {
		killed := make(chan struct{})
		d := &dying{Sink: sink, after: nth, die: func() { close(killed) }}
		p := startBoth(t, log, cfg, nil, d)
		<-killed
		s.Kill()
		p.log.Kill()
		p.stop()
		<-p.ended
		if nth == 2 { // the role is back before ClickHouse is
			p := startBoth(t, log, cfg, nil, nil)
			require.Eventually(t, func() bool {
				v, _ := alarmtest.Value(t, p.registry, `starling_history_write_failures_total{sink="clickhouse"}`)
				return v >= 2
			}, time.Minute, 10*time.Millisecond)
			settledBy(t, log, spec) // the lake goes on
			p.end(t)
		}
		require.NoError(t, s.Restart())
	}
	p := startBoth(t, log, cfg, nil, nil)
	settledBy(t, log, clickhouseSpec)
	settledBy(t, log, spec)
	requireClickHouse(t, cfg.ClickHouse, want)
	requireLake(t, cfg.LakeDir, want)
	require.Eventually(t, func() bool {
		v, _ := alarmtest.Value(t, p.registry, `starling_history_rollups_total{sink="clickhouse"}`)
		return v > 0
	}, time.Minute, 10*time.Millisecond)
	p.end(t)
}
