package kafkalog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/retry"
)

// resumeKey is the key, among those of a partition's state, whose value is the
// resume offset (8 bytes, big-endian), one for each group. Vehicle ids do not
// start with a zero byte; keys that start so are refused.
const resumeKey = "\x00resume\x00"

// fencedAttempts bounds how often a checkpoint is tried that another producer
// or generation has overtaken. While brokers are away there is no bound: the
// claim's end is one.
const fencedAttempts = 5

// A claim is one partition held by one membership.
//
// A checkpoint is one transaction that writes the changed keys and the resume
// offset to the state topic and commits the resume offset to the group, with
// the group's generation and the member's name. It is done with the
// transactional id "<group>-<state topic>-<partition>".
//
// The resume offset is in the state topic as well because that is where Load
// takes it from: the snapshot is then read from one partition, in the order in which
// it was written, and cannot outlive or be outlived by what the group keeps
// (the brokers forget a group's offsets when it has been empty for
// offsets.retention.minutes). The commit to the group is there for the check
// that goes with it: the coordinator refuses it from a member that is no longer
// one, or of an earlier generation, and without it the transaction is aborted.
// It also shows the lag to the usual tools.
//
// There are therefore two fences. The producer epoch is raised by every Load,
// and stops a zombie between its Load and its checkpoint. The generation stops
// a zombie that wakes up before its Load and so raises the epoch over the head
// of the real owner: the zombie's own checkpoint is refused, and the owner,
// finding itself fenced while the group still counts it in, raises the epoch
// again and repeats its checkpoint. That is safe because nothing that the
// zombie wrote can have been committed.
//
// What a crash leaves behind, step by step: before the end of the transaction,
// records that no reader is shown, and the next Load aborts them; once the
// coordinator has written the commit, the whole checkpoint, whose end the next
// Load awaits. When the answer to the commit is lost the checkpoint is done
// again, with the same content.
type claim struct {
	m         *membership
	partition int32
	member    *kgo.Client

	ctx      context.Context // ends when the claim is lost
	cancel   context.CancelFunc
	revoked  chan struct{}
	once     sync.Once
	finished chan struct{} // closed when its holder has returned

	mu   sync.Mutex
	lost bool

	using      sync.Mutex // the holder's call under way
	transactor *transactor
}

// Partition implements eventlog.Claim.
func (c *claim) Partition() int32 { return c.partition }

// Revoked implements eventlog.Claim.
func (c *claim) Revoked() <-chan struct{} { return c.revoked }

func (c *claim) revoke() { c.once.Do(func() { close(c.revoked) }) }

func (c *claim) isRevoked() bool {
	select {
	case <-c.revoked:
		return true
	default:
		return false
	}
}

func (c *claim) lose() {
	c.mu.Lock()
	c.lost = true
	c.mu.Unlock()
	c.cancel()
}

func (c *claim) isLost() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

// usable reports why a call can't go ahead.
func (c *claim) usable() error {
	switch {
	case c.m.log.isClosed():
		return eventlog.ErrClosed
	case c.isLost():
		return fmt.Errorf("the claim was lost: %w", eventlog.ErrFenced)
	}
	return nil
}

// transactionalPrefix is what the transactional ids of a group's claims on a state
// topic begin with.
func transactionalPrefix(group, state string) string { return group + "-" + state + "-" }

func (c *claim) transactionalID() string {
	return transactionalPrefix(c.m.group, c.m.state.physical) + strconv.Itoa(int(c.partition))
}

// Load implements eventlog.Claim. The fence comes before the reading, so that
// nothing can be committed behind what was read.
func (c *claim) Load(ctx context.Context, fn func(key, value []byte) error) (int64, error) {
	c.using.Lock()
	defer c.using.Unlock()
	start := time.Now()
	if err := c.usable(); err != nil {
		return 0, err
	}
	if err := c.retryWhileOwned(ctx, "fence earlier owners", c.raiseEpoch); err != nil {
		return 0, err
	}
	var values map[string][]byte
	if err := c.retryWhileOwned(ctx, "read state", func(ctx context.Context) error {
		var err error
		values, err = c.readState(ctx)
		return err
	}); err != nil {
		return 0, err
	}
	resume, err := c.takeResume(values)
	if err != nil {
		return 0, err
	}
	for k, v := range values {
		if err := fn([]byte(k), v); err != nil {
			return 0, err
		}
	}
	c.m.log.metrics.loadTime.Observe(time.Since(start).Seconds())
	return resume, c.usable()
}

// retryWhileOwned repeats a step of Load while brokers are away, for as long as the
// claim lasts.
func (c *claim) retryWhileOwned(ctx context.Context, what string, step func(context.Context) error) error {
	for attempt := 1; ; attempt++ {
		err := step(ctx)
		if err == nil {
			return nil
		}
		if gone := c.usable(); gone != nil {
			return gone
		}
		err = fmt.Errorf("load partition %d: %s: %w", c.partition, what, err)
		var ke *kerr.Error
		if errors.As(err, &ke) && !ke.Retriable || ctx.Err() != nil {
			return err
		}
		c.m.log.logger.Warn("a step of loading failed and is tried again", "partition", c.partition, "step", what, "attempt", attempt, "error", err)
		if waited := c.wait(ctx, backoff(attempt)); waited != nil {
			return errors.Join(waited, err)
		}
	}
}

// wait returns after d, or as soon as the claim or ctx has ended.
func (c *claim) wait(ctx context.Context, d time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	if err := retry.Sleep(ctx, d); err != nil {
		if gone := c.usable(); gone != nil {
			return gone
		}
		return err
	}
	return c.usable()
}

// readState returns the newest value of each key.
func (c *claim) readState(ctx context.Context) (map[string][]byte, error) {
	values := make(map[string][]byte)
	err := scanPartition(ctx, c.m.log.admin, c.m.state.physical, c.partition, int32(c.m.log.cfg.FetchMaxBytes), func(r *kgo.Record) error {
		if r.Value == nil {
			delete(values, string(r.Key))
			return nil
		}
		if old, ok := values[string(r.Key)]; ok && cap(old) >= len(r.Value) {
			values[string(r.Key)] = append(old[:0], r.Value...)
			return nil
		}
		values[string(r.Key)] = append(make([]byte, 0, len(r.Value)), r.Value...)
		return nil
	})
	return values, err
}

// takeResume removes the resume offsets, of all groups, from what was loaded
// and returns this group's.
func (c *claim) takeResume(values map[string][]byte) (int64, error) {
	resume := int64(-1)
	for k, v := range values {
		group, ok := strings.CutPrefix(k, resumeKey)
		if !ok {
			continue
		}
		if len(v) != 8 {
			return 0, fmt.Errorf("load partition %d: the resume offset of group %s has %d bytes: must have 8", c.partition, group, len(v))
		}
		if group == c.m.group {
			resume = int64(binary.BigEndian.Uint64(v))
		}
		delete(values, k)
	}
	return resume, nil
}

// raiseEpoch starts a transactor, which fences every earlier one.
func (c *claim) raiseEpoch(ctx context.Context) error {
	c.dropTransactor()
	t, err := newTransactor(ctx, c.m.log, c.m.state, c.transactionalID())
	if err != nil {
		return err
	}
	c.transactor = t
	return nil
}

func (c *claim) dropTransactor() {
	if c.transactor != nil {
		c.transactor.close()
		c.transactor = nil
	}
}

func (c *claim) closeTransactor() {
	c.using.Lock()
	defer c.using.Unlock()
	c.dropTransactor()
}

// Checkpoint implements eventlog.Claim.
func (c *claim) Checkpoint(ctx context.Context, changes []eventlog.Record, resume int64) error {
	c.using.Lock()
	defer c.using.Unlock()
	if resume < 0 {
		return fmt.Errorf("checkpoint partition %d: resume offset %d: must not be negative", c.partition, resume)
	}
	for i := range changes {
		if strings.HasPrefix(string(changes[i].Key), resumeKey) {
			return fmt.Errorf("checkpoint partition %d: key %q is reserved", c.partition, changes[i].Key)
		}
	}
	start := time.Now()
	if err := c.checkpoint(ctx, changes, resume); err != nil {
		return fmt.Errorf("checkpoint partition %d: %w", c.partition, err)
	}
	c.m.log.metrics.checkpoint.Observe(time.Since(start).Seconds())
	return nil
}

func (c *claim) checkpoint(ctx context.Context, changes []eventlog.Record, resume int64) error {
	if err := c.usable(); err != nil {
		return err
	}
	if c.transactor == nil {
		return errors.New("the claim has not been loaded")
	}
	fenced := 0
	for attempt := 1; ; attempt++ {
		err := c.try(ctx, changes, resume)
		if err == nil {
			return nil
		}
		if gone := c.usable(); gone != nil {
			return errors.Join(gone, err)
		}
		if isProducerFenced(err) || errors.Is(err, kerr.IllegalGeneration) {
			fenced++
		}
		if isExpelled(err) || fenced == fencedAttempts {
			c.m.disowned(c, err)
			return fmt.Errorf("%w: %w", eventlog.ErrFenced, err)
		}
		if isRefused(err) || ctx.Err() != nil {
			c.dropTransactor() // its transaction may be open: Load comes first
			return err
		}
		c.m.log.logger.Warn("checkpoint failed and is tried again", "partition", c.partition, "attempt", attempt, "error", err)
		if waited := c.wait(ctx, backoff(attempt)); waited != nil {
			c.dropTransactor()
			return errors.Join(waited, err)
		}
		// A new epoch ends the last attempt's transaction one way or the other.
		if err := c.retryWhileOwned(ctx, "end the last transaction", c.raiseEpoch); err != nil {
			return err
		}
	}
}

// try does one transaction. The member's generation is read before the claim
// is looked at: had the partition gone to another in the meantime, either the
// claim is already lost or the generation too old to be accepted.
func (c *claim) try(ctx context.Context, changes []eventlog.Record, resume int64) error {
	memberID, generation := c.member.GroupMetadata()
	if err := c.usable(); err != nil {
		return err
	}
	return c.transactor.do(ctx, checkpointTxn{
		state: c.m.state.physical, source: c.m.source.physical, partition: c.partition,
		changes: changes, resumeKey: resumeKey + c.m.group, resume: resume,
		group: c.m.group, memberID: memberID, generation: generation,
	})
}

// isExpelled reports that the group does not know this member any more.
func isExpelled(err error) bool {
	return errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.FencedInstanceID)
}

// isProducerFenced reports that another has raised the epoch.
func isProducerFenced(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch)
}

// isRefused reports that trying again would not help.
func isRefused(err error) bool {
	for _, refused := range []error{
		kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.TopicAuthorizationFailed,
		kerr.GroupAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed, kerr.ClusterAuthorizationFailed,
		kerr.InvalidTransactionTimeout, kerr.UnsupportedVersion,
	} {
		if errors.Is(err, refused) {
			return true
		}
	}
	return false
}
