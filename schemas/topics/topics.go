// Package topics declares Starling's topics in one place: their names, keys,
// retention and compaction. Both log adapters create them from here.
package topics

import "time"

// Names of the topics.
const (
	Locations    = "locations"
	Tracks       = "tracks"
	TrackerState = "tracker-state"
	RideRequests = "ride-requests"
	Rides        = "rides"
	RidesState   = "rides-state"
	HistoryState = "history-state"
	DeadLetters  = "dead-letters"
)

// DefaultPartitions is the number of partitions when none is set. It is the
// one decision that can't be changed later without a migration.
const DefaultPartitions = 24

// Topic declares one topic. All topics have the same number of partitions, so
// that a record's consequences are in the partition of its cause.
type Topic struct {
	// Name is the topic's name.
	Name string
	// Key describes what the key of a record is.
	Key string
	// Value names the message that a record's value encodes.
	Value string
	// Retention is how long records are kept; zero means for ever.
	Retention time.Duration
	// Compacted topics keep the latest record of every key.
	Compacted bool
	// MaxRecordBytes bounds a record's encoded size.
	MaxRecordBytes int
}

// All returns every topic.
func All() []Topic {
	const day = 24 * time.Hour
	return []Topic{
		{Name: Locations, Key: "vehicle id; empty for ticks and version switches", Value: "starling.v1.LocationRecord", Retention: 7 * day, MaxRecordBytes: 1 << 20},
		{Name: Tracks, Key: "the key of its source record", Value: "starling.v1.TrackRecord", Retention: 7 * day, MaxRecordBytes: 4 << 20},
		{Name: TrackerState, Key: "vehicle id", Value: "state of one vehicle, as tracker encodes it", Compacted: true, MaxRecordBytes: 1 << 20},
		{Name: RideRequests, Key: "ride name", Value: "starling.v1.RideRequestRecord", Retention: 7 * day, MaxRecordBytes: 64 << 10},
		{Name: Rides, Key: "ride name; empty for takeovers", Value: "starling.v1.RideRecord", Retention: 28 * day, MaxRecordBytes: 64 << 10},
		{Name: RidesState, Key: "ride name", Value: "starling.v1.RideState", Compacted: true, MaxRecordBytes: 64 << 10},
		{Name: HistoryState, Key: "name of a sink of history", Value: "starling.v1.HistoryPartitionState", Compacted: true, MaxRecordBytes: 1 << 20},
		{Name: DeadLetters, Key: "topic/partition/offset of the origin", Value: "what could not be processed, with the reason", Retention: 28 * day, MaxRecordBytes: 4 << 20},
	}
}

// ByName returns the declaration of a topic.
func ByName(name string) (Topic, bool) {
	for _, t := range All() {
		if t.Name == name {
			return t, true
		}
	}
	return Topic{}, false
}
