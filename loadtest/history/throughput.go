package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-fleet/starling/history"
	"github.com/starling-fleet/starling/history/clickhouse"
	"github.com/starling-fleet/starling/history/lake"
	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/internal/clickhousetest"
	"github.com/starling-fleet/starling/internal/config"
	"github.com/starling-fleet/starling/internal/locallog"
)

// ThroughputOptions are what a measurement of throughput is set to.
type ThroughputOptions struct {
	// Sink is lake, clickhouse or clickhouse-rollups.
	Sink string
	// WorkDir has the log, which is used again when it is there, and what the sink
	// writes; empty means a temporary one.
	WorkDir string
	// Vehicles each report one fix a second for Seconds.
	Vehicles, Seconds int
	// Duration ends the measurement before the log's end.
	Duration time.Duration
	// Progress, if not nil, is told how far it is.
	Progress func(string)
}

// DefaultThroughputOptions fill a log of three million fixes.
func DefaultThroughputOptions() ThroughputOptions {
	return ThroughputOptions{Sink: "lake", Vehicles: 4800, Seconds: 625, Duration: 5 * time.Minute}
}

// goals are fixes a second on 2 cores.
var goals = map[string]float64{"lake": 100_000, "clickhouse": 100_000, "clickhouse-rollups": 50_000}

// Validate returns the faults of o.
func (o *ThroughputOptions) Validate() error {
	if _, ok := goals[o.Sink]; !ok {
		return fmt.Errorf("-sink is %q: must be lake, clickhouse or clickhouse-rollups", o.Sink)
	}
	if o.Vehicles < partitions || o.Seconds < 60 || o.Duration < time.Second {
		return fmt.Errorf("-vehicles must be %d or more, -seconds 60 or more, -duration a second or more", partitions)
	}
	return nil
}

// Throughput is what was measured.
type Throughput struct {
	Sink           string        `json:"sink"`
	Fixes          int64         `json:"fixes"`
	Elapsed        time.Duration `json:"elapsed_ns"`
	FixesPerSecond float64       `json:"fixes_per_second"`
	// Windows are fixes a second in each ten seconds.
	Windows []float64 `json:"windows"`
	// RoleCPU and EngineCPU are processor time per fix, in microseconds.
	RoleCPU   float64 `json:"role_cpu_us"`
	EngineCPU float64 `json:"engine_cpu_us"`
	// Rollups are the hours that were computed anew.
	Rollups float64 `json:"rollups"`
}

// String implements report.Result.
func (t *Throughput) String() string {
	var windows []string
	for _, w := range t.Windows {
		windows = append(windows, fmt.Sprintf("%.0f", w/1000))
	}
	return fmt.Sprintf("%s: %d fixes in %.1f s, %.0f fixes/s; processor time a fix: the role %.2f us, the engine %.2f us; hours computed: %.0f\nthousands a second in each 10 s: %s\n",
		t.Sink, t.Fixes, t.Elapsed.Seconds(), t.FixesPerSecond, t.RoleCPU, t.EngineCPU, t.Rollups, strings.Join(windows, " "))
}

// Misses implements report.Result.
func (t *Throughput) Misses() []string {
	if goal := goals[t.Sink]; t.FixesPerSecond < goal {
		return []string{fmt.Sprintf("%s takes %.0f fixes/s, the goal is %.0f", t.Sink, t.FixesPerSecond, goal)}
	}
	return nil
}

// counting counts the records of the batches that a sink has taken. Each record has
// one fix.
type counting struct {
	history.Sink
	fixes atomic.Int64
}

// Write implements history.Sink.
func (c *counting) Write(ctx context.Context, b *row.Batch) (row.Written, error) {
	w, err := c.Sink.Write(ctx, b)
	if err == nil {
		c.fixes.Add(b.Last - b.First + 1)
	}
	return w, err
}

// rolling is counting for a sink that computes statistics.
type rolling struct {
	counting
	sink *clickhouse.Sink
}

// Rollup has the role compute statistics.
func (r *rolling) Rollup(ctx context.Context, owns func(int64) bool) (int, error) {
	return r.sink.Rollup(ctx, owns)
}

// MeasureThroughput has the role write a filled `tracks` to one sink, from its first
// record on, as fast as it can.
func MeasureThroughput(ctx context.Context, o ThroughputOptions) (t *Throughput, err error) {
	dir := o.WorkDir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "starling-history-throughput-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	log, records, err := filledLog(ctx, dir, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	to, err := os.MkdirTemp(dir, o.Sink+"-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(to)) }()
	m := &measurement{o: o, records: records, cfg: history.DefaultConfig(), registry: prometheus.NewRegistry()}
	m.cfg.LakeGroup = fmt.Sprint("bench-lake-", time.Now().UnixNano()) // from the first record on
	m.cfg.ClickHouseGroup = strings.Replace(m.cfg.LakeGroup, "lake", "clickhouse", 1)
	end, err := m.makeSink(ctx, to)
	if err != nil {
		return nil, err
	}
	defer end()
	return m.run(ctx, log)
}

// filledLog opens the log of a directory and fills it if it is empty.
func filledLog(ctx context.Context, dir string, o ThroughputOptions) (*locallog.Log, int64, error) {
	log, err := openLog(dir)
	if err != nil {
		return nil, 0, err
	}
	records, err := filled(ctx, log)
	if err == nil && records == 0 {
		o.tell("filling tracks")
		if err = fill(ctx, log, o.Vehicles, o.Seconds); err == nil {
			records, err = filled(ctx, log)
		}
	}
	if err != nil {
		return nil, 0, errors.Join(err, log.Close())
	}
	o.tell(fmt.Sprintf("tracks has %d records", records))
	return log, records, nil
}

func (o *ThroughputOptions) tell(s string) {
	if o.Progress != nil {
		o.Progress(s)
	}
}

// measurement is one under way.
type measurement struct {
	o        ThroughputOptions
	records  int64
	cfg      history.Config
	registry *prometheus.Registry
	deps     history.Deps
	count    *counting
	engine   *clickhousetest.Server // nil for the lake
}

// makeSink makes the sink, which end ends.
func (m *measurement) makeSink(ctx context.Context, dir string) (end func(), err error) {
	if m.o.Sink == "lake" {
		s, err := lake.NewSink(filepath.Join(dir, "lake"))
		if err != nil {
			return nil, err
		}
		m.count = &counting{Sink: s}
		m.deps.Lake = m.count
		return func() {}, nil
	}
	installed, err := clickhousetest.Install(ctx)
	if err != nil {
		return nil, err
	}
	if m.engine, err = clickhousetest.Launch(installed, dir); err != nil {
		return nil, err
	}
	ch := clickhouse.DefaultConfig()
	ch.Addrs, ch.Username, ch.Password = []string{m.engine.Addr()}, clickhousetest.User, config.Secret(clickhousetest.Password)
	_, err = clickhouse.Migrate(ctx, ch)
	if err != nil {
		m.engine.Kill()
		return nil, err
	}
	s, err := clickhouse.NewSink(ch)
	if err != nil {
		m.engine.Kill()
		return nil, err
	}
	r := &rolling{counting: counting{Sink: s}, sink: s}
	m.count, m.deps.ClickHouse = &r.counting, r
	if m.o.Sink == "clickhouse" {
		m.cfg.ClickHouse.RollupInterval = 0
	}
	return func() { _ = s.Close(); m.engine.Kill() }, nil
}

// run measures until what is left would not fill a batch of each partition.
func (m *measurement) run(ctx context.Context, log *locallog.Log) (*Throughput, error) {
	m.deps.Log, m.deps.Registerer, m.deps.Logger = log, m.registry, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	role, err := history.New(m.cfg, m.deps)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	began, engineBefore, roleBefore := time.Now(), m.engineCPU(), roleCPU()
	go func() { ended <- role.Run(ctx) }()
	left := int64(partitions * max(m.cfg.BatchMaxRows, m.cfg.ClickHouseBatchMaxRows) / 2)
	t := &Throughput{Sink: m.o.Sink}
	ticks := time.NewTicker(10 * time.Second)
	defer ticks.Stop()
	for last := int64(0); t.Elapsed < m.o.Duration && t.Fixes < m.records-left; last = t.Fixes {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case err := <-ended:
			return nil, fmt.Errorf("the role ended: %w", err)
		case <-ticks.C:
		}
		t.Fixes, t.Elapsed = m.count.fixes.Load(), time.Since(began)
		t.Windows = append(t.Windows, float64(t.Fixes-last)/10)
		m.o.tell(fmt.Sprintf("%d fixes", t.Fixes))
	}
	t.FixesPerSecond = float64(t.Fixes) / t.Elapsed.Seconds()
	perFix := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(t.Fixes) }
	t.RoleCPU, t.EngineCPU = perFix(roleCPU()-roleBefore), perFix(m.engineCPU()-engineBefore)
	t.Rollups = m.hours()
	stop()
	return t, <-ended
}

// hours is how many hours' statistics were computed.
func (m *measurement) hours() (n float64) {
	families, _ := m.registry.Gather()
	for _, f := range families {
		if f.GetName() == "starling_history_rollups_total" {
			for _, v := range f.GetMetric() {
				n += v.GetCounter().GetValue()
			}
		}
	}
	return n
}

func (m *measurement) engineCPU() time.Duration {
	if m.engine == nil {
		return 0
	}
	used, _ := m.engine.CPU()
	return used
}

// roleCPU is what this process has used: the log's reads, the role and the sink.
func roleCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
