package kafkalog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/retry"
)

// txnOffsetCommitKey is the number of the request TxnOffsetCommit.
const txnOffsetCommitKey = int16(kmsg.TxnOffsetCommit)

// transactor does the transactions of one transactional id. One goroutine at
// a time may use it. After an error it is of no more use.
type transactor struct {
	log *Log
	cl  *kgo.Client
	id  string
}

// checkpointTxn is one checkpoint.
type checkpointTxn struct {
	state, source string
	partition     int32
	changes       []eventlog.Record
	resumeKey     string
	resume        int64
	group         string
	memberID      string
	generation    int32
}

// newTransactor initialises the transactional id: it raises its epoch and ends
// a transaction that an earlier holder left open. When it returns, all that
// was committed before can be read.
func newTransactor(ctx context.Context, l *Log, state *topic, id string) (*transactor, error) {
	cl, err := l.newClient(
		kgo.TransactionalID(id),
		kgo.TransactionTimeout(l.cfg.TransactionTimeout),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codec(l.cfg.Compression)),
		kgo.ProducerBatchMaxBytes(int32(state.maxBytes+batchOverheadBytes)),
		// A checkpoint's records are all there before the first is sent, so
		// batches are full.
		kgo.ManualFlushing(),
		kgo.MaxBufferedRecords(math.MaxInt32),
		kgo.ProduceRequestTimeout(l.cfg.RequestTimeout),
		kgo.RecordDeliveryTimeout(l.cfg.TransactionTimeout),
	)
	if err != nil {
		return nil, err
	}
	if _, _, err := cl.ProducerID(ctx); err != nil {
		cl.Close()
		return nil, fmt.Errorf("initialise transactional id %s: %w", id, err)
	}
	return &transactor{log: l, cl: cl, id: id}, nil
}

// close leaves an open transaction to the next holder or to its timeout.
func (t *transactor) close() { t.cl.Close() }

func (t *transactor) do(ctx context.Context, c checkpointTxn) error {
	ctx, cancel := context.WithTimeout(ctx, t.log.cfg.TransactionTimeout)
	defer cancel()
	if err := t.cl.BeginTransaction(); err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	if err := t.write(ctx, &c); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := t.commitOffset(ctx, &c); err != nil {
		return fmt.Errorf("commit the group's offset: %w", err)
	}
	if err := t.awaitPartition(ctx, &c); err != nil {
		return fmt.Errorf("commit transaction: %w", err)
	}
	if err := t.cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return fmt.Errorf("commit transaction: %w", err)
	}
	return nil
}

// awaitPartition returns when the client's list of partitions has the state's.
//
// franz-go (v1.22.2, storePartitionsUpdate) sends what has waited for a topic's
// partitions before it enters them into the list that EndTransaction looks at
// for what the transaction has written to. If all of it is acknowledged in
// between, EndTransaction finds nothing, aborts instead of committing, and
// returns nil: a checkpoint that would count as stored and is not.
func (t *transactor) awaitPartition(ctx context.Context, c *checkpointTxn) error {
	for {
		leader, _, err := t.cl.PartitionLeader(c.state, c.partition)
		if leader >= 0 {
			return nil
		}
		if waited := retry.Sleep(ctx, time.Millisecond); waited != nil {
			return fmt.Errorf("the client does not know the partition that it has written to: %w", errors.Join(waited, err))
		}
	}
}

// write sends the changes and the resume offset and waits for them.
func (t *transactor) write(ctx context.Context, c *checkpointTxn) error {
	var mu sync.Mutex
	var first error
	produced := func(_ *kgo.Record, err error) {
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = err
		}
	}
	records := make([]kgo.Record, len(c.changes)+1)
	for i, r := range c.changes {
		records[i] = kgo.Record{Topic: c.state, Partition: c.partition, Key: r.Key, Value: r.Value}
		if r.Key == nil {
			records[i].Key = []byte{} // a compacted topic takes no record without a key
		}
	}
	records[len(c.changes)] = kgo.Record{
		Topic: c.state, Partition: c.partition, Key: []byte(c.resumeKey), Value: binary.BigEndian.AppendUint64(nil, uint64(c.resume)),
	}
	for i := range records {
		t.cl.Produce(ctx, &records[i], produced)
	}
	if err := t.cl.Flush(ctx); err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	return first
}

// commitOffset makes the group's offset part of the transaction. The admin
// client sends it, which has the connections to the coordinators already.
func (t *transactor) commitOffset(ctx context.Context, c *checkpointTxn) error {
	id, epoch, err := t.cl.ProducerID(ctx)
	if err != nil {
		return err
	}
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = t.id, id, epoch, c.group
	if err := t.retry(ctx, func() error {
		resp, err := add.RequestWith(ctx, t.log.admin)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.ErrorCode)
	}); err != nil {
		return fmt.Errorf("add offsets to transaction: %w", err)
	}
	commit := kmsg.NewPtrTxnOffsetCommitRequest()
	commit.TransactionalID, commit.ProducerID, commit.ProducerEpoch, commit.Group = t.id, id, epoch, c.group
	commit.MemberID, commit.Generation = c.memberID, c.generation
	rt := kmsg.NewTxnOffsetCommitRequestTopic()
	rt.Topic = c.source
	rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	rp.Partition, rp.Offset = c.partition, c.resume
	rt.Partitions = append(rt.Partitions, rp)
	commit.Topics = append(commit.Topics, rt)
	return t.retry(ctx, func() error {
		resp, err := commit.RequestWith(ctx, t.log.admin)
		if err != nil {
			return err
		}
		if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
			return errors.New("the answer lacks the partition")
		}
		return kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	})
}

// retry repeats a request while the coordinator asks for that.
func (t *transactor) retry(ctx context.Context, request func() error) error {
	for attempt := 1; ; attempt++ {
		err := request()
		var ke *kerr.Error
		if err == nil || !errors.As(err, &ke) || !ke.Retriable || attempt >= 20 {
			return err
		}
		if werr := retry.Sleep(ctx, backoff(attempt)); werr != nil {
			return errors.Join(werr, err)
		}
	}
}
