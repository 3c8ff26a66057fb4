// Package drill kills Starling's processes at random while a fleet reports,
// and then has the account checked: what was acknowledged is in the log, each
// fix counts once, and tracks and fleet are those of a run that was never
// disturbed.
//
// It drives the real binary through its gRPC servers. What it sends and whom it kills
// follow from the seed; when exactly, and what the machine does meanwhile, does
// not, so a seed repeats a drill closely and not to the instant.
package drill

import (
	"fmt"
	"io"
	"time"

	"github.com/starling-fleet/starling/internal/valid"
	"github.com/starling-fleet/starling/loadtest/drill/drillog"
)

// Options set a drill.
type Options struct {
	// Binary is the path of the starling binary.
	Binary string
	// KafkaBrokers makes the drill run every role in a process of its own on
	// Kafka; empty means `starling up` on the local log.
	KafkaBrokers []string
	// Dir is an empty folder for the log and the output of the processes.
	Dir string
	// Args are added to every command line.
	Args []string

	// Partitions of every topic.
	Partitions int
	// FixesPerSecond is what the whole fleet sends.
	FixesPerSecond int
	// FixInterval is the device time between two fixes of one vehicle.
	FixInterval time.Duration
	// Speed is how many times faster than device time the fleet reports, as if
	// it had been out of reach for a while. Rate, interval and speed give the
	// size of the fleet.
	Speed float64
	// FixesPerReport is how many fixes a report carries.
	FixesPerReport int
	// Streams is the number of connections' streams over which vehicles share.
	Streams int
	// Duration is how long the fleet reports.
	Duration time.Duration
	// Kills is how many processes are killed in that time.
	Kills int
	// Stop ends processes by SIGTERM in place of killing them, each once it serves
	// again: every one must end in good order within stopLimit.
	Stop bool
	// Zombies is how many times a tracker is stopped for longer than its
	// session and then goes on; on Kafka only.
	Zombies int
	// Rollout makes the drill go through the plan of a rollout instead of
	// killing at random: a tracker is added and removed, every process is
	// restarted, and it is measured how long fixes take to be found meanwhile. It
	// needs KafkaBrokers.
	Rollout bool
	// Cluster, if set, makes trackers and each of its brokers be killed and come
	// back as well, one after another.
	Cluster Cluster
	// LogClock, if set, makes the drill set clocks wrong instead of killing: it
	// sets that of the machine that stamps the log's records off by so much, and
	// a part of the fleet has devices whose clocks are off.
	LogClock func(offset time.Duration) error
	// Slack multiplies what the plan's phases may cost; 0 means 1.
	Slack float64
	// Seed decides what is sent and who is killed.
	Seed uint64

	// Progress, if not nil, gets a line for each step.
	Progress io.Writer
}

// DefaultOptions is the long form's shape with a short form's size.
func DefaultOptions() Options {
	return Options{
		Partitions:     24,
		FixesPerSecond: 20_000,
		FixInterval:    time.Second,
		Speed:          1,
		FixesPerReport: 5,
		Streams:        64,
		Duration:       time.Minute,
		Kills:          10,
		Seed:           1,
	}
}

// Validate names every fault.
func (o *Options) Validate() error {
	var faults valid.Faults
	faults.Need(o.Binary != "", "binary", o.Binary, "set")
	faults.Need(o.Dir != "", "dir", o.Dir, "set")
	valid.Positive(&faults, "partitions", o.Partitions)
	valid.Between(&faults, "speed", o.Speed, 0.01, 1000)
	valid.AtLeast(&faults, "fix_interval", o.FixInterval, 10*time.Millisecond)
	valid.Between(&faults, "fixes_per_report", o.FixesPerReport, 1, 500)
	valid.Positive(&faults, "streams", o.Streams)
	valid.Positive(&faults, "duration", o.Duration)
	valid.AtLeast(&faults, "kills", o.Kills, 0)
	valid.AtLeast(&faults, "zombies", o.Zombies, 0)
	faults.Need(!o.Rollout || len(o.KafkaBrokers) > 0, "rollout", o.Rollout, "false without Kafka")
	faults.Need(!o.Rollout || o.Kills == 0 && o.Zombies == 0, "kills", o.Kills, "0, and zombies too, with rollout, whose plan has its own")
	faults.Need(o.Cluster == nil || o.Rollout, "cluster", "set", "left out without rollout")
	faults.Need(o.LogClock == nil || !o.Rollout && o.Kills == 0 && o.Zombies == 0 && o.Speed == 1, "log_clock", "set", "left out unless speed is 1 and nothing is killed")
	valid.AtLeast(&faults, "slack", o.Slack, 0)
	faults.Need(o.Zombies == 0 || len(o.KafkaBrokers) > 0, "zombies", o.Zombies, "0 on the local log, whose directory belongs to one process")
	if o.FixInterval > 0 && o.Speed > 0 && o.Streams > 0 {
		faults.Need(o.vehicles() >= o.Streams, "rate", o.FixesPerSecond,
			fmt.Sprintf("enough for %d streams: with a fix every %v it makes %d vehicles", o.Streams, o.FixInterval, o.vehicles()))
	}
	return faults.Err()
}

func (o *Options) vehicles() int {
	return int(float64(o.FixesPerSecond) * o.FixInterval.Seconds() / o.Speed)
}

func (o *Options) slack() float64 {
	if o.Slack == 0 {
		return 1
	}
	return o.Slack
}

func (o *Options) onKafka() bool { return len(o.KafkaBrokers) > 0 }

func (o *Options) log() drillog.Place {
	return drillog.Place{Dir: o.Dir, KafkaBrokers: o.KafkaBrokers, Partitions: o.Partitions}
}
