// Package silence measures what vehicles cost that report no more: the tracker's
// step over hours of stream time in which nothing comes but an owner's ticks, as
// fast as it can. It uses no log, so it shows the step's own work and the bytes
// that a tracker hands to its log, and nothing of what a log makes of them.
package silence

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/starling-fleet/starling/internal/valid"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

// Options set a measurement.
type Options struct {
	// Vehicles share the partitions. Each sends Reports reports of one fix, one a
	// second, within the first minutes, and then nothing.
	Vehicles, Partitions, Reports int
	// For is the stream time that is stepped after the last report.
	For time.Duration
	// CheckpointInterval is the stream time between two snapshots.
	CheckpointInterval time.Duration
}

// DefaultOptions are a parked fleet of 100,000 vehicles with full windows.
func DefaultOptions() Options {
	return Options{Vehicles: 100_000, Partitions: 24, Reports: 100, For: 2 * time.Hour, CheckpointInterval: 10 * time.Second}
}

// Validate names each option that breaks a rule.
func (o Options) Validate() error {
	var faults valid.Faults
	valid.Between(&faults, "vehicles", o.Vehicles, 1, 10_000_000)
	faults.Need(o.Partitions >= 1 && o.Partitions <= o.Vehicles, "partitions", o.Partitions, "between 1 and the number of vehicles")
	valid.Between(&faults, "reports", o.Reports, 1, 1000)
	valid.Between(&faults, "for", o.For, 2*time.Minute, 100*24*time.Hour)
	valid.Between(&faults, "checkpoint_interval", o.CheckpointInterval, time.Second, time.Hour)
	return faults.Err()
}

// cost is what a stretch of stream time has taken.
type cost struct {
	stream, cpu                     time.Duration
	ticks, refreshes, forgotten     int64
	trackBytes, checkpointBytes     int64
	checkpoints, checkpointVehicles int64
}

func (c *cost) add(o *cost) {
	c.stream += o.stream
	c.cpu += o.cpu
	c.ticks += o.ticks
	c.refreshes += o.refreshes
	c.forgotten += o.forgotten
	c.trackBytes += o.trackBytes
	c.checkpointBytes += o.checkpointBytes
	c.checkpoints += o.checkpoints
	c.checkpointVehicles += o.checkpointVehicles
}

// Result is what silence costs: in all, and in its second half, when it has
// become steady.
type Result struct {
	Options Options
	// Known is how many vehicles the partitions know in the end, and HeapBytes
	// what the live heap has grown by when all are known.
	Known     int
	HeapBytes int64
	// All and Steady are a day's cost at the rate of the whole stretch and of its
	// second half.
	All, Steady Daily
	Forgotten   int64
}

// Daily is a day's cost.
type Daily struct {
	TrackBytes, CheckpointBytes, Refreshes float64
	// Cores is the share of one processor core.
	Cores float64
}

func daily(c *cost, partitions int) Daily {
	days := c.stream.Hours() / 24 / float64(partitions)
	return Daily{
		TrackBytes: float64(c.trackBytes) / days, CheckpointBytes: float64(c.checkpointBytes) / days,
		Refreshes: float64(c.refreshes) / days, Cores: c.cpu.Seconds() / (days * 86_400),
	}
}

// Misses are none: no goal is set.
func (r *Result) Misses() []string { return nil }

func (r *Result) String() string {
	var b strings.Builder
	o := r.Options
	fmt.Fprintf(&b, "%d vehicles of %d partitions, %d reports each, then %v of silence.\n\n", o.Vehicles, o.Partitions, o.Reports, o.For)
	fmt.Fprintf(&b, "| a day | at the rate of the whole silence | of its second half |\n| --- | ---: | ---: |\n")
	row := func(name, format string, value func(Daily) float64) {
		fmt.Fprintf(&b, "| %s | "+format+" | "+format+" |\n", name, value(r.All), value(r.Steady))
	}
	row("views published again, millions", "%.1f", func(d Daily) float64 { return d.Refreshes / 1e6 })
	row("`tracks`, GB", "%.2f", func(d Daily) float64 { return d.TrackBytes / 1e9 })
	row("checkpoints, GB", "%.3f", func(d Daily) float64 { return d.CheckpointBytes / 1e9 })
	row("CPU of the step and of snapshots, % of a core", "%.3f", func(d Daily) float64 { return 100 * d.Cores })
	fmt.Fprintf(&b, "\nLive heap %d B a vehicle when all are known; %d known in the end, %d forgotten.\n",
		r.HeapBytes/int64(o.Vehicles), r.Known, r.Forgotten)
	return b.String()
}

// Run steps all partitions.
func Run(ctx context.Context, o Options) (*Result, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	r := &Result{Options: o}
	before := liveHeap()
	fleets := make([]*fleet, o.Partitions)
	for i := range fleets {
		var err error
		n := o.Vehicles/o.Partitions + min(1, max(0, o.Vehicles%o.Partitions-i))
		if fleets[i], err = newFleet(o, i, n); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	r.HeapBytes = liveHeap() - before
	var all, steady cost
	for i, f := range fleets {
		for half := range 2 {
			c, err := f.wait(ctx, o.For/2)
			if err != nil {
				return nil, err
			}
			all.add(&c)
			if half == 1 {
				steady.add(&c)
			}
		}
		r.Known += f.partition.Vehicles()
		fleets[i] = nil
	}
	r.All, r.Steady, r.Forgotten = daily(&all, o.Partitions), daily(&steady, o.Partitions), all.forgotten
	return r, nil
}

// fleet is one partition.
type fleet struct {
	options   Options
	partition *step.Partition
	offset    int64
	nowMS     int64
	buffer    []byte
	last      time.Duration // stream time since the last snapshot
}

const startMS = 1_767_268_800_000

// newFleet returns a partition whose vehicles have just sent their last reports.
// Those are spread over half a minute, so that not all timers expire at once.
func newFleet(o Options, number, vehicles int) (*fleet, error) {
	p, err := step.NewPartition(step.DefaultSettings(), 1)
	if err != nil {
		return nil, err
	}
	f := &fleet{options: o, partition: p, nowMS: startMS}
	const spread = 30
	var c cost
	for s := range o.Reports + spread {
		for v := range vehicles {
			sequence := s - v%spread + 1
			if sequence < 1 || sequence > o.Reports {
				continue
			}
			angle := 2 * math.Pi * float64(v) / float64(vehicles)
			report := wire.Report{SessionID: uint64(v + 1), Sequence: int64(sequence), Fixes: []wire.Fix{{
				DeviceTimeMS: f.nowMS - 200, Has: wire.HasAccuracy | wire.HasSpeed | wire.HasHeading, AccuracyM: 5, SpeedMPS: 10, HeadingDeg: 90,
				LatDeg: 30 + math.Round(1e7*math.Sin(angle))/1e7, LonDeg: 10 + math.Round(1e7*(math.Cos(angle)+float64(s)*1e-4))/1e7,
			}}}
			if sequence == 1 {
				report.Availability = 2 // free
			}
			value := (&wire.Location{Kind: wire.KindReport, Report: report}).Append(nil)
			if err := f.step(fmt.Sprintf("car-%03d-%07d", number, v), value, &c); err != nil {
				return nil, err
			}
		}
		f.nowMS += 1000
	}
	f.snapshot(&c)
	f.buffer = nil
	return f, nil
}

func (f *fleet) step(key string, value []byte, c *cost) error {
	r, err := f.partition.Step(step.Record{Offset: f.offset, AppendTimeMS: f.nowMS, Key: []byte(key), Value: value})
	if err != nil {
		return err
	}
	if r.Poison != nil {
		return r.Poison
	}
	f.offset++
	f.buffer = r.Track.Append(f.buffer[:0])
	c.trackBytes += int64(len(f.buffer))
	for i := range r.Track.Fired {
		if d := &r.Track.Fired[i]; d.HasLive {
			c.refreshes++
		} else if d.Forgotten {
			c.forgotten++
		}
	}
	return nil
}

func (f *fleet) snapshot(c *cost) {
	s := f.partition.Snapshot(nil, nil)
	for _, change := range s.Changes {
		c.checkpointBytes += int64(len(change.Key) + len(change.Value))
	}
	c.checkpoints++
	c.checkpointVehicles += int64(len(s.Changes) - 1)
}

var tick = (&wire.Location{Kind: wire.KindTick}).Append(nil)

// wait lets stream time go on by ticks, one a second and more while timers wait.
func (f *fleet) wait(ctx context.Context, d time.Duration) (c cost, err error) {
	runtime.GC()
	began := cpuTime()
	for c.stream = 0; c.stream < d; c.stream += time.Second {
		if err := ctx.Err(); err != nil {
			return c, err
		}
		f.nowMS += 1000
		for again := true; again; again = f.partition.TimersPending() {
			c.ticks++
			if err := f.step("", tick, &c); err != nil {
				return c, err
			}
		}
		if f.last += time.Second; f.last >= f.options.CheckpointInterval {
			f.last = 0
			f.snapshot(&c)
		}
	}
	c.cpu = cpuTime() - began
	return c, nil
}

// cpuTime is the process's, user and system.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // only a bad argument fails
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func liveHeap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
