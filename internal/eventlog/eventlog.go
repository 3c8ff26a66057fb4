// Package eventlog is the contract between Starling's roles and the log that
// they write to and read from. Two adapters implement it: internal/locallog
// (embedded, on Pebble) and internal/kafkalog (Apache Kafka). The conformance
// suite in internal/eventlog/logtest holds both to what is written here.
//
// The log is a set of topics, each divided into the same number of partitions. A
// partition is a sequence of records with offsets that only grow (they may have
// gaps: on Kafka, and where a repair of a local log has declared records lost).
// A record becomes visible to readers only when it is durable, and the log
// itself stamps it with its append time.
package eventlog

import (
	"context"
	"errors"
	"fmt"
)

// Record is what a writer appends. The log keeps both slices until the
// record's Completion has been called: the caller must not change them.
type Record struct {
	// Key names what the record is about; it may be empty.
	Key []byte
	// Value is the encoded record.
	Value []byte
}

// Stored is a record as it is read back. Its slices are shared between readers
// and must not be changed.
type Stored struct {
	// Offset is the record's place in its partition.
	Offset int64
	// AppendTimeMS is when the log took the record, stamped by the log, in
	// milliseconds since the Unix epoch. It may step back by the skew between
	// brokers, so readers that need a clock take the largest so far.
	AppendTimeMS int64
	// Key and Value are as appended.
	Key, Value []byte
}

// Completion receives the outcome of one appended record.
type Completion interface {
	// Done is called exactly once for every Append that returned nil. With a
	// nil error the record is durable at offset. ErrFull and ErrTooLarge mean
	// that it is certainly not in the log; any other error leaves that open.
	// Within a partition, calls come in append order. Records appended behind
	// one that fails may be stored all the same, for as long as the writer has
	// not learned of it: see kafkalog, whose client can't call them back. Done
	// must not block.
	Done(offset int64, err error)
}

// Appender writes records. It is safe for concurrent use.
type Appender interface {
	// Append queues a record for one partition. Records that one goroutine
	// appends to a partition keep their order. Append blocks while the log's
	// buffer is full (this is how pressure travels back to clients) until ctx
	// is done. A non-nil error means that the record was not queued and that
	// Done will not be called.
	Append(ctx context.Context, topic string, partition int32, rec Record, done Completion) error
}

// Batch is a run of consecutive records of one partition, oldest first.
type Batch struct {
	Partition int32
	Records   []Stored
	// End is one past the offset of the newest durable record of the partition
	// when the batch was read: a reader that has everything below it has
	// caught up.
	End int64
}

// Reader reads partitions of one topic without owning them. One goroutine at a
// time may use it.
type Reader interface {
	// Poll returns the next batch of any of the reader's partitions, waiting
	// until there is one. Every partition gets its turn. It fails with
	// *TruncatedError when the records it was to read next are gone, with
	// ErrClosed after Close or when the log is closed, and with ctx's error.
	Poll(ctx context.Context) (Batch, error)
	// Close releases the reader.
	Close() error
}

// Bounds are the ends of a partition as far as they are durable.
type Bounds struct {
	// First is the offset of the oldest record still kept, or End if none is.
	First int64
	// End is one past the newest durable record.
	End int64
}

// Claim is the exclusive right to one partition: while it lasts, its holder is
// the only owner whose checkpoints are accepted.
type Claim interface {
	// Partition is the partition that is owned.
	Partition() int32

	// Revoked is closed when the partition is to be handed over in good order:
	// the holder stops reading, waits for its appends, checkpoints and
	// returns. When the claim is lost instead, the context that was passed to
	// the serve function is cancelled: the holder returns at once.
	Revoked() <-chan struct{}

	// Load fences every earlier claim of the partition and then calls fn with
	// the latest value of each key of the partition's state, in no set order.
	// It returns the resume offset of the last checkpoint, or -1 if there is
	// none. The slices are fn's to keep.
	Load(ctx context.Context, fn func(key, value []byte) error) (resume int64, err error)

	// Checkpoint stores the changed keys and the resume offset as one atomic,
	// durable step: after a crash either all of it or nothing is there. A
	// record with a nil Value deletes its key. It fails with ErrFenced when a
	// later claim has been loaded.
	Checkpoint(ctx context.Context, changes []Record, resume int64) error
}

// Serve handles one claimed partition until it is revoked or ctx is done. Its
// error ends the whole Own call.
type Serve func(ctx context.Context, claim Claim) error

// OwnSpec names what is owned and where its state is kept.
type OwnSpec struct {
	// Group is the name of the owners' group.
	Group string
	// Source is the topic whose partitions are owned.
	Source string
	// State is the compacted topic that holds the owners' state.
	State string
	// Assigned, if not nil, follows what the group assigns to this Own call. It is
	// not part of what is owned.
	Assigned *Assignment
}

// Owned returns what is owned, without what follows one call.
func (s OwnSpec) Owned() OwnSpec {
	s.Assigned = nil
	return s
}

// Log is the whole contract.
type Log interface {
	Appender

	// Partitions is the number of partitions of every topic.
	Partitions() int32

	// Epoch is the number that is raised when state has been lost or the log
	// has been shortened; see ARCHITECTURE.md.
	Epoch() int64

	// Bounds returns the ends of all partitions of a topic, by partition.
	Bounds(ctx context.Context, topic string) ([]Bounds, error)

	// NewReader reads the partitions named in start, each from its offset.
	NewReader(ctx context.Context, topic string, start map[int32]int64) (Reader, error)

	// Own joins the group and calls serve, in a goroutine of its own, for each
	// partition that falls to this process, until ctx is done (then every
	// claim is revoked and Own returns nil after all serve calls have), or
	// serve fails.
	Own(ctx context.Context, spec OwnSpec, serve Serve) error

	// Failed is closed when the log has failed for good: a write whose outcome is
	// open, or damage that a read has met. From then on every call of the log, its
	// readers and its claims fails in bounded time, every append under way is
	// completed with an error, and Close returns the failure. The process is to
	// exit; only opening the log again reports what it holds. A log that recovers by
	// itself, as a cluster does, never closes it.
	Failed() <-chan struct{}

	// Err reports why the log has failed; nil before Failed is closed.
	Err() error

	// Close stops the log. What was acknowledged is kept; appends still queued
	// fail with ErrClosed.
	Close() error
}

var (
	// ErrFull reports that the log refuses appends because it is about to run
	// out of space, and that the record was not stored. It takes appends again
	// by itself when there is space.
	ErrFull = errors.New("log is full")
	// ErrTooLarge reports that a record is larger than the log takes.
	ErrTooLarge = errors.New("record is too large for the log")
	// ErrFenced reports that a later claim owns the partition.
	ErrFenced = errors.New("partition is owned by a later claim")
	// ErrClosed reports that the log or the reader was closed.
	ErrClosed = errors.New("log is closed")
	// ErrUnknownTopic reports that the log has no such topic or partition.
	ErrUnknownTopic = errors.New("no such topic or partition")
	// ErrConfiguredOtherwise is returned by an open of a log whose number of
	// partitions, or another property that can't change, is not the configured one.
	ErrConfiguredOtherwise = errors.New("the log is made otherwise than it is configured")
)

// TruncatedError reports that records which a reader wanted have been deleted.
type TruncatedError struct {
	Topic     string
	Partition int32
	// Want is the offset that was asked for, First the oldest that is kept.
	Want, First int64
}

func (e *TruncatedError) Error() string {
	return fmt.Sprintf("topic %s partition %d: offset %d was deleted, the oldest kept is %d", e.Topic, e.Partition, e.Want, e.First)
}
