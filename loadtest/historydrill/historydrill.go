// Package historydrill sends recorded fixes through Starling into both sinks of history,
// kills Starling and ClickHouse at random meanwhile, and compares what was kept with
// what was sent.
package historydrill

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/history/clickhouse"
	"github.com/starling-fleet/starling/internal/clickhousetest"
	"github.com/starling-fleet/starling/internal/config"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/loadtest/historydrill/judge"
	"github.com/starling-fleet/starling/loadtest/process"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Options are what a drill is set to.
type Options struct {
	// Starling is the binary and what comes before its arguments.
	Starling []string
	// Fixes are sent in this order.
	Fixes []Fix
	// WorkDir holds the log, the lake and ClickHouse's data; it is made and removed
	// within the system's temporary directory if it is empty.
	WorkDir string
	// Kills are how many processes are killed, Starling or ClickHouse by chance.
	Kills int
	// Away is how long ClickHouse stays away after one of its kills, while fixes go on.
	Away time.Duration
	// MaxLag, if it is not 0, is history.max_lag, and shorter than Away: then ClickHouse
	// is given up for what it has not taken, and the gap must be on record.
	MaxLag time.Duration
	// Partitions are those of the log.
	Partitions int
	// Interval is how long rows are gathered.
	Interval time.Duration
	// Patience bounds the wait until everything is kept.
	Patience time.Duration
	Seed     uint64
	Progress func(string)
}

// DefaultOptions are those of the long form.
func DefaultOptions() Options {
	return Options{Kills: 20, Partitions: 4, Away: time.Minute, Interval: 2 * time.Second, Patience: 10 * time.Minute, Seed: 1, Progress: func(string) {}}
}

// Fix is a row of a recording.
type Fix struct {
	Vehicle string
	Fix     *starlingv1.Fix
}

// Account is what a drill has found.
type Account struct {
	Rows, Distinct, Vehicles   int
	KilledStarling, KilledCH   int
	LakeRows, LakeFiles        int
	CellHours                  int
	AckedWhileAway             int64
	Missing, Gaps              int      // fixes that ClickHouse was given up for, and the ranges on record
	Lake, ClickHouse, Rollups  []string // what differs
	Refused                    int64
	SendDuration, KeptDuration time.Duration
}

// String implements report.Result.
func (a *Account) String() string {
	return fmt.Sprintf(`%d rows of %d vehicles were sent, %d refused, %d distinct (vehicle, time) in the rest
killed: Starling %d times, ClickHouse %d times; acknowledged while ClickHouse was away: %d fixes; ClickHouse was given up for %d fixes, in %d ranges on record
sent in %s; everything was kept %s later
the lake: %d rows in %d files; statistics: %d cells and hours
`, a.Rows, a.Vehicles, a.Refused, a.Distinct, a.KilledStarling, a.KilledCH, a.AckedWhileAway, a.Missing, a.Gaps, a.SendDuration.Round(time.Second), a.KeptDuration.Round(time.Second), a.LakeRows, a.LakeFiles, a.CellHours)
}

// Misses implements report.Result.
func (a *Account) Misses() []string {
	var out []string
	for name, lines := range map[string][]string{"the lake": a.Lake, "ClickHouse": a.ClickHouse, "statistics of cells": a.Rollups} {
		for _, line := range lines {
			out = append(out, name+": "+line)
		}
	}
	slices.Sort(out)
	return out
}

// drill is one under way.
type drill struct {
	o      Options
	rng    *rand.Rand
	dir    string
	engine *clickhousetest.Server
	up     *process.Process
	addrs  process.Addresses
	cfg    clickhouse.Config
	acc    Account

	mu      sync.Mutex
	refused map[report]bool
	back    chan error // has how ClickHouse came back; nil while it is not away
}

// report is one report of a vehicle, counted from 1; each has one fix.
type report struct {
	vehicle string
	number  int64
}

func (d *drill) refuses(r client.Refusal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused[report{r.VehicleID, r.Sequence}] = true
}

// Run runs a drill.
func Run(ctx context.Context, o Options) (*Account, error) {
	d := &drill{o: o, rng: rand.New(rand.NewPCG(o.Seed, 7)), dir: o.WorkDir, refused: map[report]bool{}}
	if d.dir == "" {
		dir, err := os.MkdirTemp("", "starling-history-drill-")
		if err != nil {
			return nil, err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		d.dir = dir
	}
	if err := d.start(ctx); err != nil {
		return nil, err
	}
	defer d.engine.Kill()
	defer d.up.Kill()
	began := time.Now()
	if err := d.send(ctx); err != nil {
		return nil, errors.Join(err, errors.New(d.up.LastOutput()))
	}
	d.acc.SendDuration = time.Since(began)
	o.Progress("everything is acknowledged")
	began = time.Now()
	if err := d.settle(ctx); err != nil {
		return nil, err
	}
	d.acc.KeptDuration = time.Since(began)
	return &d.acc, nil
}

// start starts ClickHouse and Starling.
func (d *drill) start(ctx context.Context) error {
	engine, err := clickhousetest.Install(ctx)
	if err != nil {
		return err
	}
	data := filepath.Join(d.dir, "clickhouse")
	if err := os.MkdirAll(data, 0o750); err != nil {
		return err
	}
	if d.engine, err = clickhousetest.Launch(engine, data); err != nil {
		return err
	}
	d.cfg = clickhouse.DefaultConfig()
	d.cfg.Addrs, d.cfg.Username, d.cfg.Password = []string{d.engine.Addr()}, clickhousetest.User, config.Secret(clickhousetest.Password)
	if _, err = clickhouse.Migrate(ctx, d.cfg); err == nil {
		d.addrs, err = process.FreeAddresses()
	}
	secret := filepath.Join(d.dir, "password")
	if err = errors.Join(err, os.WriteFile(secret, []byte(clickhousetest.Password), 0o600)); err != nil {
		d.engine.Kill()
		return err
	}
	d.up = process.New(process.Spec{Name: "starling", Admin: d.addrs.Admin, Command: slices.Concat(d.o.Starling, []string{
		"up", "--log-level", "error", "--local-directory", filepath.Join(d.dir, "log"), "--partitions", fmt.Sprint(d.o.Partitions),
		"--ingest-validation-max-age", "876000h", "--history-lake-dir", filepath.Join(d.dir, "lake"), "--history-batch-interval", d.o.Interval.String(),
		"--history-clickhouse-addrs", d.engine.Addr(), "--history-clickhouse-username", clickhousetest.User, "--history-clickhouse-password-file", secret,
		"--history-clickhouse-batch-interval", d.o.Interval.String(), "--history-clickhouse-rollup-interval", "2s", "--history-lake-join-after", "1m",
	}, d.lagArgs(), d.addrs.Args())})
	if err := d.restart(ctx); err != nil {
		d.engine.Kill()
		return err
	}
	return nil
}

func (d *drill) lagArgs() []string {
	if d.o.MaxLag == 0 {
		return nil
	}
	return []string{"--history-max-lag", d.o.MaxLag.String()}
}

func (d *drill) restart(ctx context.Context) error {
	if err := d.up.Start(); err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	_, err := d.up.WaitReady(ready)
	return err
}

// send sends all fixes, and kills at rows that are drawn.
func (d *drill) send(ctx context.Context) error {
	conn, err := client.Dial(d.addrs.Ingest, client.DialOptions{})
	if err != nil {
		return err
	}
	defer conn.Close()
	cfg := client.DefaultConfig()
	cfg.MaxPendingReports, cfg.BackoffMin, cfg.BackoffMax = 256, 20*time.Millisecond, 500*time.Millisecond
	reporter, err := client.NewReporter(conn, cfg, client.Handlers{Refused: d.refuses})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		cancel(reporter.Run(ctx))
	}()
	defer func() { cancel(nil); <-ran }()
	var at []int
	for range d.o.Kills {
		at = append(at, d.rng.IntN(len(d.o.Fixes)))
	}
	slices.Sort(at)
	away := d.o.Away
	for i, f := range d.o.Fixes {
		for len(at) > 0 && at[0] == i {
			at = at[1:]
			if err := d.kill(ctx, reporter, &away); err != nil {
				return err
			}
		}
		if err := reporter.Send(ctx, &starlingv1.Report{VehicleId: f.Vehicle, Fixes: []*starlingv1.Fix{f.Fix}}); err != nil {
			return errors.Join(err, context.Cause(ctx))
		}
	}
	err = errors.Join(reporter.Close(ctx), d.isBack())
	d.mu.Lock()
	d.acc.Refused = int64(len(d.refused))
	d.mu.Unlock()
	return err
}

// kill kills Starling or ClickHouse and starts it again. The first time that it is
// ClickHouse it stays away for a while, in which fixes are sent.
func (d *drill) kill(ctx context.Context, reporter *client.Reporter, away *time.Duration) error {
	if d.rng.IntN(2) == 0 {
		d.acc.KilledStarling++
		d.up.Kill()
		d.o.Progress(fmt.Sprintf("Starling was killed (%d)", d.acc.KilledStarling))
		return d.restart(ctx)
	}
	if err := d.isBack(); err != nil {
		return err
	}
	d.acc.KilledCH++
	d.engine.Kill()
	d.o.Progress(fmt.Sprintf("ClickHouse was killed (%d)", d.acc.KilledCH))
	if *away == 0 {
		return d.engine.Restart()
	}
	d.back = make(chan error, 1)
	stays, before := *away, reporter.Stats().AcknowledgedFixes
	go func() {
		if err := retry.Sleep(ctx, stays); err != nil {
			d.back <- err
			return
		}
		d.acc.AckedWhileAway = reporter.Stats().AcknowledgedFixes - before
		d.back <- d.engine.Restart()
	}()
	*away = 0
	return nil
}

// isBack waits until ClickHouse is not away any more.
func (d *drill) isBack() error {
	if d.back == nil {
		return nil
	}
	err := <-d.back
	d.back = nil
	d.o.Progress("ClickHouse is back")
	return err
}

// settle waits until both sinks have everything, and keeps what still differs when the
// patience ends.
func (d *drill) settle(ctx context.Context) error {
	sent, reports := judge.Fleet{}, map[string]int64{}
	for _, f := range d.o.Fixes {
		if reports[f.Vehicle]++; d.refused[report{f.Vehicle, reports[f.Vehicle]}] {
			continue // ingest has said so
		}
		sent[f.Vehicle] = append(sent[f.Vehicle], judge.Point{TimeMS: f.Fix.DeviceTimeMs, LatE7: judge.E7(f.Fix.Latitude), LonE7: judge.E7(f.Fix.Longitude)})
	}
	d.acc.Rows, d.acc.Vehicles = len(d.o.Fixes), len(sent)
	d.acc.Distinct = sent.First()
	conn, err := ch.Open(&ch.Options{Addr: d.cfg.Addrs, Auth: ch.Auth{Database: d.cfg.Database, Username: d.cfg.Username, Password: clickhousetest.Password}, ReadTimeout: time.Minute})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	for deadline := time.Now().Add(d.o.Patience); ; {
		if err := d.judge(ctx, sent, conn); err != nil {
			return err
		}
		if len(d.acc.Misses()) == 0 || time.Now().After(deadline) {
			return nil
		}
		d.o.Progress(fmt.Sprintf("not yet: %s", d.acc.Misses()[0]))
		if err := retry.Sleep(ctx, d.o.Interval); err != nil {
			return err
		}
	}
}

// judge compares both sinks with what was sent, and the statistics with those of the
// lake's rows.
func (d *drill) judge(ctx context.Context, sent judge.Fleet, conn ch.Conn) error {
	var table judge.Fleet
	kept, err := judge.ReadLake(filepath.Join(d.dir, "lake"))
	if err == nil {
		table, err = judge.Table(ctx, conn)
	}
	if err != nil {
		return err
	}
	d.acc.LakeRows, d.acc.LakeFiles = kept.Rows, kept.Files
	d.acc.Lake, d.acc.ClickHouse, d.acc.Rollups = judge.Differences(sent, kept.Fleet), judge.Differences(sent, table), nil
	if d.o.MaxLag > 0 {
		return d.judgeGap(ctx, sent, table, conn)
	}
	if len(d.acc.Lake)+len(d.acc.ClickHouse) > 0 {
		return nil
	}
	want, err := kept.CellHours()
	if err != nil {
		return err
	}
	got, err := judge.Rollups(ctx, conn)
	if err != nil {
		return err
	}
	d.acc.CellHours = len(want)
	if n := want.Compare(got); n > 0 {
		d.acc.Rollups = []string{fmt.Sprintf("%d of %d cells and hours differ from what the lake's rows give", n, len(want))}
	}
	return nil
}

// judgeGap judges a ClickHouse that was given up for a while: it has nothing but what
// was sent, and what it lacks is on record.
func (d *drill) judgeGap(ctx context.Context, sent, table judge.Fleet, conn ch.Conn) error {
	d.acc.ClickHouse = nil
	missing, beyond := judge.Missing(sent, table)
	if beyond > 0 {
		d.acc.ClickHouse = []string{fmt.Sprintf("it has %d fixes that were not sent", beyond)}
	}
	var gaps uint64
	if err := conn.QueryRow(ctx, "SELECT count() FROM gaps FINAL").Scan(&gaps); err != nil {
		return err
	}
	d.acc.Missing, d.acc.Gaps = missing, int(gaps)
	if gaps == 0 {
		d.acc.ClickHouse = append(d.acc.ClickHouse, fmt.Sprintf("it lacks %d fixes, and no gap is on record", missing))
	}
	return nil
}
