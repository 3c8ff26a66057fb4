package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/starling-fleet/starling/internal/eventlog"
)

// A fetcher is one consuming client that many readers share: it asks each
// broker with one request for the partitions of all of them, where a client
// for every reader would hold a connection to every broker. One goroutine
// polls it and hands each partition's records to that partition's lane; it
// never blocks, because a lane that is full is paused.
type fetcher struct {
	cl     *kgo.Client
	logger *slog.Logger

	mu       sync.Mutex
	commands []command
	stopped  bool
	cancel   context.CancelFunc // ends the poll under way

	lanes map[lanekey]*lane // the polling goroutine's

	used map[lanekey]bool // the pool's: lanes given out, begun or not
	done chan struct{}    // closed when the polling goroutine has ended
}

type lanekey struct {
	topic     string // physical
	partition int32
}

type command struct {
	run  func()
	done chan struct{}
}

func (l *Log) openFetcher() (*fetcher, error) {
	cl, err := l.newClient(
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), // an offset that is gone is the reader's to know
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(int32(l.cfg.FetchMaxBytes)),
		kgo.FetchMaxPartitionBytes(int32(l.cfg.FetchMaxPartitionBytes)),
		kgo.FetchMaxWait(l.cfg.FetchMaxWait),
	)
	if err != nil {
		return nil, err
	}
	f := &fetcher{cl: cl, logger: l.logger, lanes: make(map[lanekey]*lane), used: make(map[lanekey]bool), done: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	go f.run(ctx)
	return f, nil
}

// exec runs fn in the polling goroutine, between two polls, and waits for it.
// What was polled before is then already handed out, so that a lane which fn
// opens cannot be given what was fetched for an earlier one.
func (f *fetcher) exec(fn func()) {
	done := make(chan struct{})
	f.mu.Lock()
	if f.stopped {
		f.mu.Unlock()
		return
	}
	f.commands = append(f.commands, command{fn, done})
	f.cancel()
	f.mu.Unlock()
	<-done
}

// close ends the client. Lanes that are open get nothing more.
func (f *fetcher) close() {
	f.mu.Lock()
	f.stopped = true
	f.cancel()
	f.mu.Unlock()
	<-f.done
	f.cl.Close()
}

func (f *fetcher) run(ctx context.Context) {
	defer close(f.done)
	for {
		fetches := f.cl.PollFetches(ctx)
		fetches.EachPartition(f.handOut)
		if ctx.Err() == nil {
			continue
		}
		f.mu.Lock()
		commands, stopped := f.commands, f.stopped
		f.commands = nil
		ctx, f.cancel = context.WithCancel(context.Background())
		f.mu.Unlock()
		for _, c := range commands {
			c.run()
			close(c.done)
		}
		if stopped {
			f.cancel()
			return
		}
	}
}

// handOut passes on what was fetched of one partition.
func (f *fetcher) handOut(p kgo.FetchTopicPartition) {
	l, ok := f.lanes[lanekey{p.Topic, p.Partition}]
	if !ok {
		return // closed, or the poll's own end
	}
	if len(p.Records) > 0 {
		l.push(p.FetchPartition)
	}
	switch {
	case p.Err == nil:
	case isFatal(p.Err):
		f.drop(l)
		l.pushError(p.Err)
	default: // the client goes on trying
		f.logger.Warn("fetch failed", "topic", p.Topic, "partition", p.Partition, "error", p.Err)
	}
}

// drop stops fetching a lane's partition. It runs in the polling goroutine.
func (f *fetcher) drop(l *lane) {
	if f.lanes[l.key] != l {
		return
	}
	delete(f.lanes, l.key)
	which := map[string][]int32{l.key.topic: {l.key.partition}}
	f.cl.RemoveConsumePartitions(which)
	f.cl.ResumeFetchPartitions(map[string][]int32{l.key.topic: {l.key.partition}})
}

// add starts fetching lanes, each from its next offset.
func (f *fetcher) add(lanes []*lane) {
	from := make(map[string]map[int32]kgo.Offset)
	for _, l := range lanes {
		f.lanes[l.key] = l
		if from[l.key.topic] == nil {
			from[l.key.topic] = make(map[int32]kgo.Offset)
		}
		from[l.key.topic][l.key.partition] = kgo.NewOffset().At(l.next)
	}
	f.cl.AddConsumePartitions(from)
}

func (f *fetcher) pause(k lanekey) {
	f.cl.PauseFetchPartitions(map[string][]int32{k.topic: {k.partition}})
}

func (f *fetcher) resume(k lanekey) {
	f.cl.ResumeFetchPartitions(map[string][]int32{k.topic: {k.partition}})
}

// fetcherPool hands out fetchers. A client can consume a partition only once,
// so a second reader of the same partition gets another fetcher; there are as
// many as readers of one partition at the same time.
type fetcherPool struct {
	open func() (*fetcher, error)

	mu       sync.Mutex
	fetchers []*fetcher
	closed   bool
}

// take returns the first fetcher that reads none of the partitions yet, and
// marks them as read.
func (p *fetcherPool) take(keys []lanekey) (*fetcher, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, eventlog.ErrClosed
	}
	free := func(f *fetcher) bool {
		return !slices.ContainsFunc(keys, func(k lanekey) bool { return f.used[k] })
	}
	i := slices.IndexFunc(p.fetchers, free)
	if i < 0 {
		f, err := p.open()
		if err != nil {
			return nil, fmt.Errorf("open a fetcher: %w", err)
		}
		i, p.fetchers = len(p.fetchers), append(p.fetchers, f)
	}
	for _, k := range keys {
		p.fetchers[i].used[k] = true
	}
	return p.fetchers[i], nil
}

// give takes a fetcher back. One without readers is closed, but for the last.
func (p *fetcherPool) give(f *fetcher, keys []lanekey) {
	p.mu.Lock()
	for _, k := range keys {
		delete(f.used, k)
	}
	idle := len(f.used) == 0 && len(p.fetchers) > 1 && !p.closed
	if idle {
		p.fetchers = slices.DeleteFunc(p.fetchers, func(other *fetcher) bool { return other == f })
	}
	p.mu.Unlock()
	if idle {
		f.close()
	}
}

func (p *fetcherPool) close() {
	p.mu.Lock()
	p.closed = true
	fetchers := p.fetchers
	p.mu.Unlock()
	for _, f := range fetchers {
		f.close()
	}
}

// isFatal reports that the client can't heal an error by itself: the offset is
// gone, the topic was replaced by another of its name, or a broker refuses.
func isFatal(err error) bool {
	var ke *kerr.Error
	return isOutOfRange(err) || errors.Is(err, kerr.UnknownTopicID) || errors.As(err, &ke) && !ke.Retriable
}

// isOutOfRange reports that the log does not hold the offset that was asked for.
func isOutOfRange(err error) bool {
	var loss *kgo.ErrDataLoss
	return errors.Is(err, kerr.OffsetOutOfRange) || errors.As(err, &loss)
}
