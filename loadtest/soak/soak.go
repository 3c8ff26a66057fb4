package soak

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/starling-fleet/starling/loadtest/conns"
	"github.com/starling-fleet/starling/loadtest/generate"
	"github.com/starling-fleet/starling/loadtest/process"
)

const (
	connections = 8
	// stopPatience is how long the process may take to stop.
	stopPatience = time.Minute
	// consumePatience is how long the trackers may take to catch up.
	consumePatience = 5 * time.Minute
	fixesMetric     = "starling_tracker_fixes_total"
	bytesMetric     = "starling_locallog_appended_bytes_total"
	// fillPatience is how long the log may take to fill up to its retention.
	fillPatience = 15 * time.Minute
)

// soak is one run.
type soak struct {
	opts   Options
	server *process.Up
	conns  conns.Set
	dir    string
	result *Result
}

// Run makes a soak. The result's Faults name what was not flat; the error, what
// kept the run from being made.
func Run(ctx context.Context, o Options) (*Result, error) {
	if err := o.Validate(); err != nil {
		return &Result{}, fmt.Errorf("soak: %w", err)
	}
	s := &soak{opts: o, result: &Result{Vehicles: o.Streams * o.VehiclesPerStream}}
	var err error
	if s.dir, err = os.MkdirTemp(o.WorkDir, "starling-soak-"); err != nil {
		return s.result, fmt.Errorf("soak: %w", err)
	}
	defer func() { _ = os.RemoveAll(s.dir) }()
	keep := fmt.Sprintf("locations=%d,tracks=%d", o.locationBytes(), o.RetentionBytes)
	s.server, err = process.StartUp(ctx, o.Starling, s.dir, "--local-retention-bytes", keep, "--local-retention-interval", "5s")
	if err != nil {
		return s.result, fmt.Errorf("soak: %w", err)
	}
	err = s.run(ctx)
	s.conns.Close()
	if err = errors.Join(s.server.End(stopPatience), err); err != nil {
		return s.result, fmt.Errorf("soak: %w", err)
	}
	return s.result, nil
}

func (s *soak) logf(format string, args ...any) {
	if s.opts.Progress != nil {
		s.opts.Progress(fmt.Sprintf(format, args...))
	}
}

func (s *soak) run(ctx context.Context) error {
	o := s.opts
	if s.result.OfferedFixesPerSecond = o.FixesPerSecond; o.FixesPerSecond == 0 {
		if err := s.calibrate(ctx); err != nil {
			return fmt.Errorf("find the sustained load: %w", err)
		}
		s.result.OfferedFixesPerSecond = s.result.SustainableFixesPerSecond / 2
	}
	loadCtx, endLoad := context.WithCancel(ctx)
	defer endLoad()
	type outcome struct {
		r   generate.Result
		err error
	}
	loaded := make(chan outcome, 1)
	load, err := s.load("soak-", s.result.OfferedFixesPerSecond, fillPatience+o.Settle+o.Duration)
	if err != nil {
		return err
	}
	s.logf("%.0f fixes/s for %v, once the log is full and %v have passed", s.result.OfferedFixesPerSecond, o.Duration, o.Settle)
	go func() {
		r, err := generate.Run(loadCtx, load)
		loaded <- outcome{r, err}
	}()
	if err = s.fill(ctx); err == nil {
		err = s.phase(ctx, "load", o.Duration)
	}
	endLoad()
	end := <-loaded
	if err := errors.Join(err, end.err); err != nil {
		return err
	}
	if end.r.BrokenStreams > 0 || end.r.RefusedFixes > 0 {
		s.result.Faults = append(s.result.Faults, fmt.Sprintf("load: %d streams broke, %d fixes were refused", end.r.BrokenStreams, end.r.RefusedFixes))
	}
	s.logf("the fleet is silent for %v, of which %v to settle", o.Settle+o.Silence, o.Settle)
	return s.phase(ctx, "silence", o.Silence)
}

// load are the settings of the generator.
func (s *soak) load(prefix string, rate float64, lasts time.Duration) (generate.Options, error) {
	ingest, err := s.conns.DialN(connections, s.server.Ingest)
	g := generate.DefaultOptions()
	g.Ingest, g.Watched, g.Warmup, g.Duration = ingest, 0, 0, lasts
	g.Streams, g.VehiclesPerStream, g.FixesPerReport = s.opts.Streams, s.opts.VehiclesPerStream, s.opts.FixesPerReport
	g.FixesPerSecond, g.VehiclePrefix = rate, prefix
	g.InFlight = min(g.InFlight, 64*g.VehiclesPerStream)
	return g, err
}

// calibrate finds the load that is sustained end to end: fixes sent flat out, by
// the time until the tracker has taken the last.
func (s *soak) calibrate(ctx context.Context) error {
	load, err := s.load("soak-", 0, s.opts.Calibration)
	if err != nil {
		return err
	}
	began := time.Now()
	r, err := generate.Run(ctx, load)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, consumePatience)
	defer cancel()
	for {
		m, err := s.server.Metrics(ctx)
		if err != nil {
			return err
		}
		if m[fixesMetric] >= float64(r.AcknowledgedFixes) {
			break
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("the tracker has taken %.0f of %d fixes: %w", m[fixesMetric], r.AcknowledgedFixes, err)
		}
	}
	s.result.SustainableFixesPerSecond = float64(r.AcknowledgedFixes) / time.Since(began).Seconds()
	s.logf("sustained: %.0f fixes/s", s.result.SustainableFixesPerSecond)
	if r.AcknowledgedFixes == 0 {
		return errors.New("nothing was acknowledged")
	}
	return nil
}

// fill waits until the log holds as much as it is to keep.
func (s *soak) fill(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fillPatience)
	defer cancel()
	full := s.opts.Fill * float64(s.opts.locationBytes()+s.opts.RetentionBytes)
	for {
		m, err := s.server.Metrics(ctx)
		if err != nil {
			return err
		}
		if m[bytesMetric] >= full {
			s.logf("the log is full: %.0f MiB were written", m[bytesMetric]/(1<<20))
			return nil
		}
		if err := pause(ctx, s.opts.SampleInterval); err != nil {
			return fmt.Errorf("fill the log: %.0f of %.0f MiB were written: %w", m[bytesMetric]/(1<<20), full/(1<<20), err)
		}
	}
}

// phase lets the process settle, then samples it.
func (s *soak) phase(ctx context.Context, name string, lasts time.Duration) error {
	if err := pause(ctx, s.opts.Settle); err != nil {
		return err
	}
	began := time.Now()
	var samples []sample
	printed := -1
	for time.Since(began) < lasts {
		one, err := s.look(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		one.at = time.Since(began)
		samples = append(samples, one)
		if minute := int(one.at.Minutes()); minute > printed {
			printed = minute
			s.logf("%s: memory %.0f MiB, heap %.0f MiB, disk %.0f MiB", name, mebi(one.residentB), mebi(one.heapB), mebi(one.diskB))
		}
		if err := pause(ctx, s.opts.SampleInterval); err != nil {
			return err
		}
	}
	p := newPhase(name, samples, s.opts.Windows, lasts)
	s.result.Phases = append(s.result.Phases, p)
	s.result.Faults = slices.Concat(s.result.Faults, p.judge(s.opts.Band))
	return nil
}

// look takes one sample.
func (s *soak) look(ctx context.Context) (one sample, err error) {
	if one.residentB = s.server.Memory("VmRSS"); one.residentB < 0 {
		return one, errors.New("the process's memory can't be read (Linux only)")
	}
	if one.cpu, err = s.server.CPU(); err != nil {
		return one, err
	}
	m, err := s.server.Metrics(ctx)
	if err != nil {
		return one, err
	}
	one.heapB, one.fixesTotal, one.goroutinesN = int64(m["go_memstats_heap_alloc_bytes"]), m[fixesMetric], int64(m["go_goroutines"])
	one.diskB, err = diskBytes(s.dir)
	return one, err
}

// diskBytes is what a folder takes on disk. Files that go meanwhile don't count.
func diskBytes(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			sum += stat.Blocks * 512
		}
		return nil
	})
	return sum, err
}

// pause waits, or returns why ctx is done.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
