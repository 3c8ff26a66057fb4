package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/starling-fleet/starling/internal/eventlog"
)

// leaveTimeout bounds how long a member tries to leave the group in good order. If it
// can't, the group finds out after the session timeout.
const leaveTimeout = 5 * time.Second

// membership is one Own call: a member of a classic consumer group with the
// cooperative-sticky balancer. The group is used for sharing out partitions
// alone; the member never fetches a record through it.
//
// Why not the group protocol of KIP-848: its session timeout and heartbeat
// interval are settings of the brokers (45 s and 5 s by default, beyond the
// reach of whoever runs Starling on a managed cluster), so that a killed
// tracker's partitions would rest for most of a minute, and the client library
// advises against it for brokers before Kafka 4.3. In the classic protocol the
// member names both. Cooperative, because only the partitions that move stop.
// No static membership, because a planned restart should hand over at once and
// not hold its partitions back for the session timeout.
type membership struct {
	log    *Log
	spec   eventlog.OwnSpec
	source *topic
	state  *topic
	group  string
	serve  eventlog.Serve

	mu       sync.Mutex
	claims   map[int32]*claim        // what the group has given to this member
	lastDone map[int32]chan struct{} // by partition: the newest holder's return
	leaving  bool
	failure  error
	failed   chan struct{} // closed with failure
	running  sync.WaitGroup
}

// Own implements eventlog.Log.
//
// What a crash leaves behind: a member that the group gives up after the
// session timeout, and perhaps an open transaction, which the next owner's Load
// aborts.
func (l *Log) Own(ctx context.Context, spec eventlog.OwnSpec, serve eventlog.Serve) error {
	source, err := l.topic(spec.Source, 0)
	if err != nil {
		return fmt.Errorf("own %s: source: %w", spec.Group, err)
	}
	state, err := l.topic(spec.State, 0)
	if err != nil {
		return fmt.Errorf("own %s: state: %w", spec.Group, err)
	}
	l.closing.RLock()
	if l.closed {
		l.closing.RUnlock()
		return eventlog.ErrClosed
	}
	l.owning.Add(1)
	l.closing.RUnlock()
	defer l.owning.Done()

	m := &membership{
		log: l, spec: spec, source: source, state: state, group: l.cfg.TopicPrefix + spec.Group, serve: serve,
		claims: make(map[int32]*claim), lastDone: make(map[int32]chan struct{}), failed: make(chan struct{}),
	}
	cl, err := m.join()
	if err != nil {
		return err
	}
	return m.run(ctx, cl)
}

func (m *membership) join() (*kgo.Client, error) {
	cfg := &m.log.cfg
	cl, err := m.log.newClient(
		kgo.ConsumerGroup(m.group),
		kgo.ConsumeTopics(m.source.physical),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.DisableAutoCommit(),
		kgo.SessionTimeout(cfg.SessionTimeout),
		kgo.HeartbeatInterval(cfg.HeartbeatInterval),
		// The group waits so long for a member that is handing over.
		kgo.RebalanceTimeout(cfg.HandoverTimeout+cfg.SessionTimeout),
		kgo.ConsumeStartOffset(kgo.NewOffset().At(0)),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.OnPartitionsAssigned(func(_ context.Context, cl *kgo.Client, assigned map[string][]int32) {
			m.give(cl, assigned[m.source.physical])
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, revoked map[string][]int32) {
			m.handOver(revoked[m.source.physical])
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
			m.lose(lost[m.source.physical])
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("join group %s: %w", m.group, err)
	}
	cl.PauseFetchTopics(m.source.physical) // for good: readers fetch elsewhere
	return cl, nil
}

// run waits for the end of the membership and brings it about in good order:
// the partitions are handed over while the member still heartbeats, so that
// the last checkpoints count, and only then does it leave the group.
func (m *membership) run(ctx context.Context, cl *kgo.Client) error {
	polling, stopPolling := context.WithCancel(context.Background())
	var poller sync.WaitGroup
	poller.Go(func() { m.watch(polling, cl) })

	var ended error
	select {
	case <-ctx.Done():
	case <-m.failed:
	case <-m.log.gone:
		ended = eventlog.ErrClosed
	}
	m.mu.Lock()
	m.leaving = true
	var held []int32
	for p := range m.claims {
		held = append(held, p)
	}
	m.mu.Unlock()
	if ended == nil {
		m.handOver(held)
	} else {
		m.lose(held)
	}
	m.running.Wait()

	leaving, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	if err := cl.LeaveGroupContext(leaving); err != nil {
		m.log.logger.Warn("could not leave the group; it will notice after the session timeout", "group", m.group, "error", err)
	}
	stopPolling()
	poller.Wait()
	cl.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failure != nil {
		return m.failure
	}
	return ended
}

// watch looks for errors of the group: a poll returns nothing else, because
// the topic is paused.
func (m *membership) watch(ctx context.Context, cl *kgo.Client) {
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil || fetches.IsClientClosed() {
			return
		}
		fetches.EachError(func(_ string, _ int32, err error) {
			if errors.Is(err, kerr.GroupAuthorizationFailed) || errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.InvalidSessionTimeout) {
				m.fail(fmt.Errorf("own %s: %w", m.group, err))
				return
			}
			m.log.logger.Warn("trouble with the group", "group", m.group, "error", err)
		})
	}
}

func (m *membership) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failure == nil {
		m.failure = err
		close(m.failed)
	}
}

// give starts to serve partitions.
func (m *membership) give(cl *kgo.Client, partitions []int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leaving {
		return // they go to others as soon as this member has left
	}
	for _, p := range partitions {
		ctx, cancel := context.WithCancel(context.Background())
		c := &claim{m: m, partition: p, member: cl, ctx: ctx, cancel: cancel, revoked: make(chan struct{}), finished: make(chan struct{})}
		before := m.lastDone[p]
		done := make(chan struct{})
		m.claims[p], m.lastDone[p] = c, done
		m.running.Add(1)
		m.log.metrics.owned.Inc()
		m.log.logger.Info("partition assigned", "group", m.group, "partition", p)
		go m.hold(c, before, done)
	}
	m.spec.Assigned.Set(len(m.claims))
}

// hold serves one claim, once this process's earlier holder of the partition
// has returned: it may linger, having lost its claim.
func (m *membership) hold(c *claim, before <-chan struct{}, done chan<- struct{}) {
	defer m.running.Done()
	defer close(done)
	if before != nil {
		select {
		case <-before:
		case <-c.revoked:
		case <-c.ctx.Done():
		}
	}
	if !c.isRevoked() && !c.isLost() {
		err := m.serve(c.ctx, c)
		m.served(c, err)
	}
	c.cancel()
	c.closeTransactor()
	close(c.finished)
	m.log.metrics.owned.Dec()
	if before != nil {
		<-before
	}
}

// served takes note that a holder has returned.
func (m *membership) served(c *claim, err error) {
	if c.isLost() {
		return // its result no longer counts
	}
	if err == nil && !c.isRevoked() {
		err = errors.New("serve returned before its claim was revoked")
	}
	if err != nil {
		m.fail(fmt.Errorf("serve partition %d: %w", c.partition, err))
	}
}

// handOver asks for partitions back and waits for their holders. One that
// takes too long loses its claim; should it go on, it is fenced.
func (m *membership) handOver(partitions []int32) {
	taken := m.take(partitions)
	for _, c := range taken {
		m.log.logger.Info("partition revoked", "group", m.group, "partition", c.partition)
		c.revoke()
	}
	timeout := time.NewTimer(m.log.cfg.HandoverTimeout)
	defer timeout.Stop()
	for _, c := range taken {
		select {
		case <-c.finished:
			continue
		case <-timeout.C:
			m.log.logger.Error("the holder of a partition did not hand it over in time", "group", m.group, "partition", c.partition, "timeout", m.log.cfg.HandoverTimeout)
		case <-m.log.gone:
		}
		for _, c := range taken {
			c.lose()
		}
		return
	}
}

// lose takes partitions away at once.
func (m *membership) lose(partitions []int32) {
	for _, c := range m.take(partitions) {
		m.log.logger.Warn("partition lost", "group", m.group, "partition", c.partition)
		c.lose()
	}
}

func (m *membership) take(partitions []int32) []*claim {
	m.mu.Lock()
	defer m.mu.Unlock()
	var taken []*claim
	for _, p := range partitions {
		if c := m.claims[p]; c != nil {
			delete(m.claims, p)
			taken = append(taken, c)
		}
	}
	m.spec.Assigned.Set(len(m.claims))
	return taken
}

// disowned loses a claim whose checkpoint the group has refused. The member's
// next heartbeat brings the same answer, and it joins anew. Should the group think
// otherwise, the partition would rest for ever, so the Own call then ends.
func (m *membership) disowned(c *claim, err error) {
	c.lose()
	time.AfterFunc(2*m.log.cfg.SessionTimeout, func() {
		m.mu.Lock()
		still := m.claims[c.partition] == c && !m.leaving
		m.mu.Unlock()
		if still {
			m.fail(fmt.Errorf("own %s: the group has refused a checkpoint of partition %d and yet leaves it to this member: %w", m.group, c.partition, err))
		}
	})
}
