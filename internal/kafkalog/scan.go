package kafkalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/starling-fleet/starling/internal/retry"
)

// Values of ListOffsets' timestamp with a meaning of their own.
const (
	listEarliest = -2
	listLatest   = -1
)

const (
	readUncommitted = 0
	readCommitted   = 1
)

// scanPartition calls fn with every committed record that the partition holds
// when the scan begins, oldest first. It asks the leader itself and does not go
// through a consumer, because a consumer never learns that it has reached the
// end when what stands there is a transaction's marker or was compacted away.
// The record and its slices are shared with others of its batch.
func scanPartition(ctx context.Context, cl *kgo.Client, topic string, partition int32, maxBytes int32, fn func(*kgo.Record) error) error {
	s := scan{cl: cl, topic: topic, partition: partition, maxBytes: maxBytes, decompressor: kgo.DefaultDecompressor()}
	if err := s.run(ctx, fn); err != nil {
		return fmt.Errorf("scan topic %s partition %d: %w", topic, partition, err)
	}
	return nil
}

type scan struct {
	cl           *kgo.Client
	topic        string
	partition    int32
	maxBytes     int32
	decompressor kgo.Decompressor

	leader  *kgo.Broker
	topicID [16]byte
	fails   int
}

func (s *scan) run(ctx context.Context, fn func(*kgo.Record) error) error {
	next, err := listOffset(ctx, s.cl, s.topic, s.partition, listEarliest, readUncommitted)
	if err != nil {
		return err
	}
	// The end of all records and not of the committed ones: should an earlier
	// owner's transaction still be open, the scan waits for its end.
	end, err := listOffset(ctx, s.cl, s.topic, s.partition, listLatest, readUncommitted)
	if err != nil {
		return err
	}
	for next < end {
		fetched, after, err := s.fetch(ctx, next)
		if err != nil {
			if err := s.pause(ctx, err); err != nil {
				return err
			}
			continue
		}
		s.fails = 0
		for _, r := range fetched {
			if r.Offset >= end {
				return nil
			}
			if err := fn(r); err != nil {
				return err
			}
		}
		next = after
	}
	return nil
}

// pause waits before the next try, or returns the error if there is none.
func (s *scan) pause(ctx context.Context, err error) error {
	s.leader = nil
	s.fails++
	var ke *kerr.Error
	if errors.As(err, &ke) && !ke.Retriable || s.fails > 30 {
		return err
	}
	if waited := retry.Sleep(ctx, backoff(s.fails)); waited != nil {
		return errors.Join(waited, err)
	}
	return nil
}

// fetch returns the records from an offset on, and where to go on from.
func (s *scan) fetch(ctx context.Context, from int64) ([]*kgo.Record, int64, error) {
	if err := s.findLeader(ctx); err != nil {
		return nil, from, err
	}
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis = 100
	req.MinBytes = 1
	req.MaxBytes = s.maxBytes
	req.IsolationLevel = readCommitted
	req.SessionEpoch = -1 // no fetch session
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = s.topic, s.topicID
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = s.partition, from, s.maxBytes
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	answer, err := s.leader.RetriableRequest(ctx, req)
	if err != nil {
		return nil, from, err
	}
	resp := answer.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, from, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return nil, from, errors.New("the broker's answer lacks the partition")
	}
	fp, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: from, IsolationLevel: kgo.ReadCommitted(), Topic: s.topic, Partition: s.partition,
	}, &resp.Topics[0].Partitions[0], s.decompressor, nil)
	return fp.Records, next, fp.Err
}

func (s *scan) findLeader(ctx context.Context) error {
	if s.leader != nil {
		return nil
	}
	details, err := kadm.NewClient(s.cl).ListTopics(ctx, s.topic)
	if err != nil {
		return err
	}
	t := details[s.topic]
	p, ok := t.Partitions[s.partition]
	switch {
	case t.Err != nil:
		return t.Err
	case !ok:
		return kerr.UnknownTopicOrPartition
	case p.Err != nil:
		return p.Err
	case p.Leader < 0:
		return kerr.LeaderNotAvailable
	}
	s.leader, s.topicID = s.cl.Broker(int(p.Leader)), t.ID
	return nil
}

// listOffset asks the partition's leader for one of its ends.
func listOffset(ctx context.Context, cl *kgo.Client, topic string, partition int32, which int64, isolation int8) (int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.IsolationLevel = isolation
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Partition, rp.Timestamp = partition, which
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return 0, fmt.Errorf("list offsets: %w", err)
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return 0, errors.New("list offsets: the answer lacks the partition")
	}
	got := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
		return 0, fmt.Errorf("list offsets: %w", err)
	}
	return got.Offset, nil
}
