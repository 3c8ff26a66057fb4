// Package ridedrill kills and suspends owners of rides and trackers while riders
// of several partitions fight for a few vehicles, and then has the log judged:
// no vehicle is bound to two rides, no ride to two vehicles, and no ride is
// forgotten. What clients saw is judged for linearizability. Measure drives the same
// processes without disturbing them, and measures how soon a ride is assigned.
package ridedrill

import (
	"io"
	"math"
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
	// Vehicles and Riders are how many there are; each rider asks for one ride
	// after another.
	Vehicles, Riders int
	// Followers follow one ride after another, whoever's they are, at one node after
	// another: a connection lasts for about Connected.
	Followers int
	Connected time.Duration
	// Owners is how many processes own rides and answer about them (Kafka; the local
	// log has one). With followers they alone are killed and suspended.
	Owners int
	// Away is about how long a process, or Redis, that was killed stays away; with 0
	// it is started again at once. Above 0 Redis is suspended for as long too.
	Away time.Duration
	// Proposals is after how many the riders stop, as the metrics count them, and
	// Limit after how long they stop in any case.
	Proposals int64
	Limit     time.Duration
	// Offer is how long a driver may consider an offer; 0 assigns at once.
	Offer time.Duration
	// MatchInterval is the pause of the owners between two rounds of matching.
	MatchInterval time.Duration
	// Decide is how long a proposal may wait for its tracker. A tracker remembers so
	// many decisions of a vehicle (tracker.promises), and refuses what is beyond
	// them, so that under contention the time bounds how many there are.
	Decide time.Duration
	// KillEvery and SleepEvery are the mean times between kills and between
	// suspensions (SIGSTOP) of a process, which sleeps for Asleep; 0 means never.
	KillEvery, SleepEvery, Asleep time.Duration
	// RedisServer is the path of redis-server, through which the owners then send
	// their news; empty means none. RedisEvery is the mean time between two times at
	// which it is flushed, or killed and started again, in turn.
	RedisServer string
	RedisEvery  time.Duration
	// RaiseEpoch has every process killed and the log's epoch raised once, at half of
	// Limit. On Kafka only: what raises the epoch of a local log loses records.
	RaiseEpoch bool
	// MinLost is the share of the proposals that must lose, or the drill has shown
	// nothing.
	MinLost float64
	// Seed decides what clients do and who is disturbed.
	Seed uint64

	// Progress, if not nil, gets a line for each step.
	Progress io.Writer
}

// DefaultOptions is the short form on the local log.
func DefaultOptions() Options {
	return Options{
		Partitions: 24, Vehicles: 16, Riders: 72, Proposals: 50_000, Limit: time.Minute, MatchInterval: 10 * time.Millisecond, Decide: time.Second,
		Owners: 2, Connected: time.Second,
		KillEvery: 15 * time.Second, Asleep: 10 * time.Second, RedisEvery: 7 * time.Second, MinLost: 0.5, Seed: 1,
	}
}

// DefaultFollowing is the drill of broken subscriptions: offers, so that a ride has
// many events, and vehicles for most of the riders.
func DefaultFollowing() Options {
	o := DefaultOptions()
	o.Partitions, o.Vehicles, o.Riders, o.Followers, o.Owners = 12, 40, 40, 400, 3
	o.Proposals, o.Limit, o.MatchInterval, o.Decide, o.Offer = math.MaxInt64, 2*time.Minute, 50*time.Millisecond, 3*time.Second, 5*time.Second
	o.KillEvery, o.SleepEvery, o.Asleep, o.Away = 8*time.Second, 20*time.Second, 8*time.Second, 2*time.Second
	o.RedisServer, o.RedisEvery, o.MinLost = "redis-server", 5*time.Second, 0
	return o
}

// Validate names every fault.
func (o *Options) Validate() error {
	var faults valid.Faults
	faults.Need(o.Binary != "", "binary", o.Binary, "set")
	faults.Need(o.Dir != "", "dir", o.Dir, "set")
	valid.Between(&faults, "partitions", o.Partitions, 2, 1000)
	valid.Between(&faults, "vehicles", o.Vehicles, 1, 10_000)
	valid.Between(&faults, "riders", o.Riders, 1, 10_000)
	valid.Between(&faults, "followers", o.Followers, 0, 10_000)
	valid.Between(&faults, "connected", o.Connected, 10*time.Millisecond, time.Minute)
	valid.Between(&faults, "owners", o.Owners, 1, 16)
	valid.AtLeast(&faults, "away", o.Away, 0)
	valid.AtLeast(&faults, "proposals", o.Proposals, 1)
	valid.Positive(&faults, "limit", o.Limit)
	valid.AtLeast(&faults, "offer", o.Offer, 0)
	valid.Positive(&faults, "match_interval", o.MatchInterval)
	valid.Between(&faults, "decide", o.Decide, time.Second, time.Minute)
	valid.AtLeast(&faults, "kill_every", o.KillEvery, 0)
	valid.AtLeast(&faults, "sleep_every", o.SleepEvery, 0)
	faults.Need(o.RedisServer == "" || o.RedisEvery > 0, "redis_every", o.RedisEvery, "above 0 with redis_server")
	faults.Need(!o.RaiseEpoch || o.onKafka(), "raise_epoch", o.RaiseEpoch, "false on the local log")
	valid.Between(&faults, "min_lost", o.MinLost, 0, 1)
	return faults.Err()
}

// ridesArgs are the flags of an owner of rides. They let partitions fight for
// vehicles: each pickup is a region of its own, and who has lost asks again at once.
func (o *Options) ridesArgs() []string {
	return []string{
		"--rides-match-interval", o.MatchInterval.String(), "--rides-offer", o.Offer.String(), "--rides-decide", o.Decide.String(),
		"--rides-matcher", "fifo", "--rides-region-resolution", "15", "--rides-asked-for", "0s",
		"--rides-search", "30s", "--rides-checkpoint-interval", "2s",
	}
}

func (o *Options) onKafka() bool { return len(o.KafkaBrokers) > 0 }

func (o *Options) log() drillog.Place {
	return drillog.Place{Dir: o.Dir, KafkaBrokers: o.KafkaBrokers, Partitions: o.Partitions}
}
