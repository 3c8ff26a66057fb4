// Package events carries events of rides from the owner that has read them back to
// the nodes whose callers follow them. It is news and decides nothing: whoever
// needs an event that a store has lost asks the ride's owner.
//
//   - memory.go   within one process
//   - redis.go    between processes, over Redis
//   - eventstest  what every store must do
package events

import (
	"context"
	"time"
)

// Message is one event of a ride.
type Message struct {
	// Ride is the ride's name.
	Ride string
	// Sequence is the event's number. One of 0 has no value: events of the ride may
	// have been missed, so whoever follows it should compare.
	Sequence int64
	// Value is the event as it is stored; it must not be changed.
	Value []byte
}

// Store keeps the newest events of rides and pushes them to those who subscribe.
// Its methods may be called by any number of goroutines.
type Store interface {
	// Publish stores messages and pushes them to the subscribers of their rides, in
	// the order of each ride. One whose number is not above the last stored of its
	// ride changes nothing that is stored. After an error any of them may be missing.
	Publish(ctx context.Context, messages []Message) error
	// Since returns what is stored of a ride behind a sequence number, in order. It
	// may be any part of what was published: the caller looks for gaps.
	Since(ctx context.Context, ride string, after int64) ([]Message, error)
	// Subscribe begins to deliver the events of a ride, with a Message of sequence 0
	// once nothing more can be missed; Unsubscribe ends it.
	Subscribe(ctx context.Context, ride string) error
	Unsubscribe(ctx context.Context, ride string) error
	// Run delivers what is pushed until ctx is done and then returns nil. It calls
	// deliver from one goroutine, with a ride's messages in the order in which they
	// were pushed, and again with sequence 0 whenever some may have been missed.
	// It is called once.
	Run(ctx context.Context, deliver func(Message)) error
	// Healthy returns whether pushes can be expected to come. A store within a
	// process is never healthy for others: see Shared.
	Healthy() bool
	// Shared returns whether other processes see what is published here.
	Shared() bool
}

// Bounds of a store.
type Bounds struct {
	// PerRide is how many events of a ride are kept, the newest.
	PerRide int
	// Keep is how long a ride's events are kept after its last.
	Keep time.Duration
}

// DefaultBounds keep far more than a ride has events.
func DefaultBounds() Bounds { return Bounds{PerRide: 128, Keep: 24 * time.Hour} }
