// Package kafkalog is the log on Apache Kafka, by franz-go.
//
// What makes it keep the contract of internal/eventlog:
//
//   - Appends go through one idempotent producer with acks=all: an acknowledged
//     record is on min.insync.replicas replicas, and retries neither double nor
//     reorder. A crash before the acknowledgement leaves the record in the log
//     or not; the writer got no answer and sends again.
//   - Topics use LogAppendTime, so the brokers stamp records.
//   - Readers never move by themselves: an offset that is gone is an error.
//   - Ownership is membership in a classic consumer group (own.go reports why);
//     a checkpoint is one transaction (claim.go reports what a crash leaves).
package kafkalog

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
	"golang.org/x/sync/semaphore"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
)

// Log implements eventlog.Log. It is safe for concurrent use.
type Log struct {
	cfg     Config
	opts    []kgo.Opt // of every client
	topics  map[string]*topic
	epoch   int64
	logger  *slog.Logger
	metrics *metrics

	producer *kgo.Client
	buffer   *semaphore.Weighted // bytes of max_buffered_bytes
	promise  func(*kgo.Record, error)
	pool     sync.Pool // of *pending

	admin *kgo.Client // requests outside of producing and consuming
	adm   *kadm.Client

	fetchers fetcherPool

	// closing is held for reading while a record is handed to the producer,
	// so that none slips in behind Close.
	closing sync.RWMutex
	closed  bool
	gone    chan struct{} // closed by Close
	owning  sync.WaitGroup
}

// topic is what is known of one topic, and its resolved metrics.
type topic struct {
	name     string // as the roles use it
	physical string // as Kafka has it
	maxBytes int
	appended prometheus.Counter
	fetched  prometheus.Counter
}

var _ eventlog.Log = (*Log)(nil)

// Open connects to the cluster, creates or checks the topics and reads the
// epoch. It fails when a topic has another number of partitions than cfg, or
// a setting that would break a promise of the log.
func Open(ctx context.Context, cfg Config, all []topics.Topic, reg prometheus.Registerer, logger *slog.Logger) (*Log, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	var names []string
	for _, t := range all {
		names = append(names, t.Name)
	}
	m, err := newMetrics(reg, names)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	l := &Log{cfg: cfg, topics: make(map[string]*topic), logger: logger, metrics: m, gone: make(chan struct{}), buffer: semaphore.NewWeighted(int64(cfg.MaxBufferedBytes))}
	for _, t := range all {
		l.topics[t.Name] = &topic{name: t.Name, physical: cfg.TopicPrefix + t.Name, maxBytes: t.MaxRecordBytes, appended: m.appended[t.Name], fetched: m.fetched[t.Name]}
	}
	if l.opts, err = clientOptions(&cfg, logger, m); err != nil {
		return nil, err
	}
	if err := l.connect(all); err != nil {
		return nil, err
	}
	if err := l.check(ctx, all); err != nil {
		l.producer.Close()
		l.admin.Close()
		return nil, err
	}
	return l, nil
}

// connect makes the clients; they dial when they are first used.
func (l *Log) connect(all []topics.Topic) error {
	limits := make(map[string]int32)
	for _, t := range all {
		limits[l.cfg.TopicPrefix+t.Name] = int32(batchMaxBytes(t))
	}
	producer, err := l.newClient(
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(codec(l.cfg.Compression)),
		kgo.ProducerBatchMaxBytesFn(func(topic string) int32 {
			if limit, ok := limits[topic]; ok {
				return limit
			}
			return 1 << 20
		}),
		kgo.ProducerLinger(l.cfg.Linger),
		kgo.RecordDeliveryTimeout(l.cfg.AppendTimeout),
		kgo.ProduceRequestTimeout(l.cfg.RequestTimeout),
		kgo.MaxBufferedRecords(math.MaxInt32), // l.buffer bounds the bytes
	)
	if err != nil {
		return err
	}
	// A checkpoint registers the group's offsets with AddOffsetsToTxn, which
	// every broker since 0.11 knows; later versions of TxnOffsetCommit do that
	// by themselves, but only where the cluster has transaction.version 2.
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(txnOffsetCommitKey, 4)
	admin, err := l.newClient(kgo.MaxVersions(versions))
	if err != nil {
		producer.Close()
		return err
	}
	l.producer, l.admin, l.adm = producer, admin, kadm.NewClient(admin)
	l.promise = l.finish
	l.pool.New = func() any { return new(pending) }
	l.fetchers.open = l.openFetcher
	return nil
}

func (l *Log) check(ctx context.Context, all []topics.Topic) error {
	a := &Admin{cfg: l.cfg, topics: all, cl: l.admin, adm: l.adm, logger: l.logger}
	look := a.DescribeTopics
	if l.cfg.CreateTopics {
		look = a.EnsureTopics
	}
	report, err := look(ctx)
	if err != nil {
		return err
	}
	if err := report.Err(); err != nil {
		return err
	}
	if report.Epoch == 0 {
		return fmt.Errorf("topic %s holds no epoch yet: run `starling topics create`, or set create_topics", l.cfg.TopicPrefix+metaTopic)
	}
	for _, t := range report.Topics {
		for _, d := range t.Differences {
			l.logger.Warn("a topic's setting is not as declared", "topic", t.Name, "setting", d)
		}
	}
	l.epoch = report.Epoch
	return nil
}

func (l *Log) newClient(opts ...kgo.Opt) (*kgo.Client, error) {
	cl, err := kgo.NewClient(append(append([]kgo.Opt(nil), l.opts...), opts...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	return cl, nil
}

// Partitions implements eventlog.Log.
func (l *Log) Partitions() int32 { return int32(l.cfg.Partitions) }

// Failed implements eventlog.Log. The brokers recover by themselves, and what one
// client has met does not bind the next: it is never closed.
func (l *Log) Failed() <-chan struct{} { return nil }

// Err implements eventlog.Log.
func (l *Log) Err() error { return nil }

// Epoch implements eventlog.Log. It is read once, by Open.
func (l *Log) Epoch() int64 { return l.epoch }

// Bounds implements eventlog.Log.
func (l *Log) Bounds(ctx context.Context, name string) ([]eventlog.Bounds, error) {
	t, err := l.topic(name, 0)
	if err != nil {
		return nil, err
	}
	if l.isClosed() {
		return nil, eventlog.ErrClosed
	}
	first, err := l.adm.ListStartOffsets(ctx, t.physical)
	if err == nil {
		err = first.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list the first offsets of topic %s: %w", t.physical, err)
	}
	end, err := l.adm.ListCommittedOffsets(ctx, t.physical)
	if err == nil {
		err = end.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list the ends of topic %s: %w", t.physical, err)
	}
	bounds := make([]eventlog.Bounds, l.cfg.Partitions)
	for p := range bounds {
		f, okFirst := first.Lookup(t.physical, int32(p))
		e, okEnd := end.Lookup(t.physical, int32(p))
		if !okFirst || !okEnd {
			return nil, fmt.Errorf("topic %s partition %d: the brokers do not list it", t.physical, p)
		}
		bounds[p] = eventlog.Bounds{First: f.Offset, End: max(e.Offset, f.Offset)}
	}
	return bounds, nil
}

// Close implements eventlog.Log. It does not wait for records that are still
// queued; those of which the brokers have received may be in the log all the same.
func (l *Log) Close() error {
	l.closing.Lock()
	already := l.closed
	l.closed = true
	l.closing.Unlock()
	if already {
		return nil
	}
	close(l.gone)
	l.owning.Wait()
	l.fetchers.close()
	// The client's Close ends its context before it fails what is queued. A
	// topic whose partitions arrive in between has some records queued and the
	// later ones failed at once, out of order; nothing is queued after this.
	l.producer.UnsafeAbortBufferedRecords()
	l.producer.Close() // completes what is left
	l.admin.Close()
	return nil
}

func (l *Log) isClosed() bool {
	select {
	case <-l.gone:
		return true
	default:
		return false
	}
}

func (l *Log) topic(name string, partition int32) (*topic, error) {
	t, ok := l.topics[name]
	if !ok || partition < 0 || partition >= int32(l.cfg.Partitions) {
		return nil, fmt.Errorf("topic %s partition %d: %w", name, partition, eventlog.ErrUnknownTopic)
	}
	return t, nil
}
