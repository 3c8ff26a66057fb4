package rides

import (
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"time"
	"unicode"

	"github.com/starling-fleet/starling/internal/config"
	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/internal/valid"
	"github.com/starling-fleet/starling/rides/match"
	"github.com/starling-fleet/starling/rides/name"
	"github.com/starling-fleet/starling/rides/zone"
)

// Config sets the role. The zero value is not usable; start from DefaultConfig.
type Config struct {
	// Group is the name of the owners' group.
	Group string `koanf:"group" help:"Name of the group of owners of ride partitions."`
	// Offer is how long a driver may consider an offer; 0 assigns at once.
	Offer time.Duration `koanf:"offer" help:"How long a driver may consider an offer; 0 assigns the vehicle at once."`
	// Decide is how long a proposal may wait for its tracker, in stream time.
	Decide time.Duration `koanf:"decide" help:"How long a proposal may wait for the vehicle's tracker, in the stream time of its partition."`
	// MaxFixAge is how old the newest fix of a vehicle may be that is reserved.
	MaxFixAge time.Duration `koanf:"max_fix_age" help:"How old the newest fix of a vehicle may be when it is reserved."`
	// Silence is how long a bound vehicle may be silent before it is lost.
	Silence time.Duration `koanf:"silence" help:"How long a bound vehicle may be silent before it counts as lost, in stream time."`
	// Search is how long a vehicle is searched when the request has no deadline.
	Search time.Duration `koanf:"search" help:"How long a vehicle is searched when the request names no deadline."`
	// MatchInterval is the pause between two rounds of matching.
	MatchInterval time.Duration `koanf:"match_interval" help:"Pause between two rounds of matching."`
	// Candidates is how many of the nearest vehicles are considered for a ride.
	Candidates int `koanf:"candidates" help:"How many of the nearest vehicles are considered for a ride."`
	// AskedFor is how long a vehicle is not proposed again after it was.
	AskedFor time.Duration `koanf:"asked_for" help:"How long a process does not ask a vehicle again after it has asked it: what became of it shows meanwhile. 0 lets the rides of a process fight for vehicles."`
	// RegionResolution is how large the regions are whose rides are in one
	// partition, an H3 resolution.
	RegionResolution int `koanf:"region_resolution" help:"H3 resolution, 0 to 15, of the regions whose rides are in one partition of rides and matched together by its owner: 5 are about 250 square kilometres, 6 about 36."`
	// Matcher is how vehicles are chosen.
	Matcher match.Name `koanf:"matcher" help:"How vehicles are chosen: fifo (the oldest ride takes its best vehicle), balancing (when rides outnumber vehicles, a vehicle takes its best ride) or batch (rides are gathered for some seconds and assigned at the least cost). See docs/matching.md."`
	// Match is what matchers are set to.
	Match match.Settings `koanf:"match"`
	// MaxRadius is how far away a vehicle may be, in metres.
	MaxRadiusM float64 `koanf:"max_radius_m" help:"How far away a vehicle may be that is asked, in metres."`
	// NameAge is how old a ride's name may be when its request reaches the log.
	NameAge time.Duration `koanf:"name_age" help:"How old a ride's name may be when its request reaches the log."`
	// CheckpointInterval is the pause between two checkpoints of a partition.
	CheckpointInterval time.Duration `koanf:"checkpoint_interval" help:"Pause between two checkpoints of a partition of rides."`
	// ArrivingM, ArrivedM and ArrivedAfter are when a vehicle's fixes show that it
	// arrives.
	ArrivingM    float64       `koanf:"arriving_m" help:"How near to the pickup an assigned vehicle counts as arriving, in metres; 0 leaves arriving and arrival to the driver."`
	ArrivedM     float64       `koanf:"arrived_m" help:"How near to the pickup it has arrived, in metres, once it has stayed within twice as much for arrived_after."`
	ArrivedAfter time.Duration `koanf:"arrived_after" help:"How long it has to stay there, by its fixes."`
	// IndexAge is how long the owner keeps an event for those who resume.
	IndexAge time.Duration `koanf:"index_age" help:"How long the owner of a partition keeps an event of a ride in memory. Who resumes from before it is sent the ride as it stands."`
	// CompareInterval is the pause between two comparisons of what is followed here
	// with its owners.
	CompareInterval time.Duration `koanf:"compare_interval" help:"Pause between two comparisons of the rides that are followed at a node with their owners, which find what Redis has lost. Without a Redis that answers they are compared every 250 ms."`
	// Advertise is where other nodes reach this one.
	Advertise string `koanf:"advertise" help:"Address, host:port, at which other nodes reach this one's server for rides; empty for the one that it listens on."`
	// MaxSubscribers bounds the open subscriptions of the process.
	MaxSubscribers int `koanf:"max_subscribers" help:"Most open subscriptions of ride and vehicle events."`
	// SubscriberShare is which part of MaxSubscribers one caller may use.
	SubscriberShare float64 `koanf:"subscriber_share" help:"Part of max_subscribers that the subscriptions of one caller may use: of whom the token names or, in development mode, of one address."`
	// RiderSubscribers is how many subscriptions a rider or a driver may have.
	RiderSubscribers int `koanf:"rider_subscribers" help:"Most open subscriptions of one caller with a rider's or a driver's token."`
	// RiderActive and RiderRides are how many rides of one rider an owner takes.
	RiderActive int `koanf:"rider_active" help:"Most rides under way that an owner of partitions takes of one rider whose own token asks for them. A dispatcher is not bounded."`
	RiderRides  int `koanf:"rider_rides" help:"Most rides of such a rider that it takes within name_age, those that have ended included."`
	// MaxWait is how long GetRide waits for what a call has done.
	MaxWait time.Duration `koanf:"max_wait" help:"How long GetRide with after waits at most until the call has had its effect; then it is refused with DEADLINE_EXCEEDED. ActOnRide waits as long as a tenth of it for a ride that this process has not read yet."`
	// Zones are where vehicles are taken first come, first served.
	Zones []string `koanf:"zones" help:"Zones in which vehicles are taken first come, first served, such as an airport's rank: a list of NAME=CELL CELL ..., H3 cells in hexadecimal. The same in every process (docs/rides.md)."`
	// ZoneGrace is how long a vehicle may be outside and keep its place.
	ZoneGrace time.Duration `koanf:"zone_grace" help:"How long a vehicle may be seen outside its zone, or not at all, and keep its place in the queue."`
	// NameKeys make and check names, in hexadecimal, with commas between them. The
	// first makes them.
	NameKeys config.Secret `koanf:"name_keys" help:"Keys for the names of rides, at least 32 bytes in hexadecimal each, with commas between them; the first makes names, all are accepted. Every process needs the same. name_keys_file is the better place; on the local log one is made and kept in its directory when neither is set."`
	// NameKeysFile is a file with the keys, one a line.
	NameKeysFile string `koanf:"name_keys_file" help:"File with the keys for the names of rides, one a line."`
}

// DefaultConfig returns what Starling ships with.
func DefaultConfig() Config {
	return Config{
		Group: "starling-rides", Decide: 10 * time.Second, MaxFixAge: 30 * time.Second, Silence: 5 * time.Minute,
		Search: 5 * time.Minute, MatchInterval: 50 * time.Millisecond, MaxRadiusM: 10_000, NameAge: 24 * time.Hour,
		Candidates: match.DefaultSettings().Candidates, RegionResolution: 6, AskedFor: 2 * time.Second, Matcher: match.Batch, Match: match.DefaultSettings(),
		CheckpointInterval: 5 * time.Second, MaxSubscribers: 20_000, SubscriberShare: 0.5, MaxWait: 30 * time.Second, IndexAge: 24 * time.Hour, ArrivingM: 300, ArrivedM: 40, ArrivedAfter: 5 * time.Second, CompareInterval: 5 * time.Second,
		ZoneGrace: time.Minute, RiderActive: 5, RiderRides: 100, RiderSubscribers: 20,
	}
}

// maxDeadline is how far ahead the deadline of a search may be.
const maxDeadline = time.Hour

// Validate returns all faults of c joined, each naming its field and rule, or
// nil.
func (c Config) Validate() error {
	var faults valid.Faults
	faults.Need(c.Group != "", "group", c.Group, "set")
	valid.Between(&faults, "offer", c.Offer, 0, 10*time.Minute)
	valid.Between(&faults, "decide", c.Decide, time.Second, time.Minute)
	valid.Between(&faults, "max_fix_age", c.MaxFixAge, time.Second, 10*time.Minute)
	valid.Between(&faults, "silence", c.Silence, 10*time.Second, 24*time.Hour)
	valid.Between(&faults, "search", c.Search, time.Second, maxDeadline)
	valid.Between(&faults, "match_interval", c.MatchInterval, time.Millisecond, 15*time.Second)
	valid.Between(&faults, "name_age", c.NameAge, time.Minute, 6*24*time.Hour)
	valid.Between(&faults, "checkpoint_interval", c.CheckpointInterval, 100*time.Millisecond, time.Hour)
	valid.Between(&faults, "candidates", c.Candidates, 1, 256)
	valid.Between(&faults, "asked_for", c.AskedFor, 0, time.Minute)
	valid.Between(&faults, "region_resolution", c.RegionResolution, 0, h3.MaxResolution)
	_, err := c.matcher()
	faults.In("match", err)
	faults.Need(c.MaxRadiusM > 0 && c.MaxRadiusM <= 1_000_000, "max_radius_m", c.MaxRadiusM, "above 0 and at most 1000000")
	valid.AtLeast(&faults, "max_subscribers", c.MaxSubscribers, 1)
	faults.Need(c.SubscriberShare > 0 && c.SubscriberShare <= 1, "subscriber_share", c.SubscriberShare, "above 0 and at most 1")
	valid.AtLeast(&faults, "rider_subscribers", c.RiderSubscribers, 1)
	valid.AtLeast(&faults, "rider_active", c.RiderActive, 1)
	valid.AtLeast(&faults, "rider_rides", c.RiderRides, 1)
	valid.Between(&faults, "max_wait", c.MaxWait, 10*time.Millisecond, 10*time.Minute)
	valid.Between(&faults, "index_age", c.IndexAge, time.Minute, 28*24*time.Hour)
	valid.Between(&faults, "compare_interval", c.CompareInterval, 10*time.Millisecond, time.Minute)
	valid.Between(&faults, "arriving_m", c.ArrivingM, 0, 100_000)
	valid.Between(&faults, "arrived_m", c.ArrivedM, 1, 10_000)
	valid.Between(&faults, "arrived_after", c.ArrivedAfter, 0, 10*time.Minute)
	if c.Advertise != "" {
		host, port, err := net.SplitHostPort(c.Advertise)
		faults.Need(err == nil && host != "" && port != "", "advertise", c.Advertise, "host:port")
	}
	faults.Need(c.NameKeys == "" || c.NameKeysFile == "", "name_keys_file", c.NameKeysFile, "the only one that is set of it and name_keys")
	_, err = c.keys()
	faults.Add(err)
	valid.Between(&faults, "zone_grace", c.ZoneGrace, 0, time.Hour)
	_, err = zone.Parse(c.Zones, func(string) int32 { return 0 })
	faults.In("zones", err)
	return faults.Err()
}

// matcher returns the matcher that is set.
func (c Config) matcher() (match.Matcher, error) {
	settings := c.Match
	settings.Candidates = c.Candidates
	return match.New(c.Matcher, settings)
}

// keys decodes the keys without repeating them in an error.
func (c Config) keys() ([][]byte, error) {
	var keys [][]byte
	for i, s := range strings.FieldsFunc(c.NameKeys.Reveal(), func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
		b, err := hex.DecodeString(s)
		if err != nil || len(b) < name.MinKeyBytes {
			return nil, fmt.Errorf("name_keys: key %d must be at least %d bytes in hexadecimal", i, name.MinKeyBytes)
		}
		keys = append(keys, b)
	}
	return keys, nil
}
