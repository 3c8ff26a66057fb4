package rides

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/deadletter"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/rides/owner"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// progressInterval is how often an owner that waits for a tracker looks how far
// it is.
const progressInterval = 10 * time.Millisecond

// takeoverInterval is how often an owner takes over from itself: its takeover has
// where it answers and what its records count by, and `rides` expires.
const takeoverInterval = 24 * time.Hour

// failurePause is how long an owner waits after an append that has failed.
const failurePause = 100 * time.Millisecond

// partition is the loop of one owned partition. Its run goroutine owns all of
// it; the readers and the completions of appends only send to it.
type partition struct {
	role    *Rides
	claim   eventlog.Claim
	number  int32
	logger  *slog.Logger
	owner   *owner.Owner
	inbox   *inbox
	done    *outcomes
	readers sync.WaitGroup

	rides        chan read // of `rides`
	requests     chan read // of `ride-requests`
	stopRequests context.CancelFunc

	next int64 // in `rides`
	// requestsMS and ridesMS are the stream times of `ride-requests` and `rides`:
	// their largest append stamps so far.
	requestsMS, ridesMS int64
	changed             map[string]bool
	ranks               []*rank
	tookOver            time.Time         // when it last appended a takeover
	stored              int64             // next at the last checkpoint, -1 before it
	searches            map[string]search // by ride that waits
	proposed            map[string]string // ride to the vehicle that it asks for and that is not granted yet
	matchAgain          time.Time         // when it may match outside of its ticks
	forgotten           []string
}

// read is what a reader has polled.
type read struct {
	batch eventlog.Batch
	err   error
}

// run serves the partition until it is revoked (nil) or lost.
func (p *partition) run(ctx context.Context) error {
	k, err := load(ctx, p.claim)
	if err != nil {
		return err
	}
	if err := k.clip(ctx, p.role.log, p.number); err != nil {
		return err
	}
	stored := &kept{state: k.state.Clone(), next: k.next}
	p.owner = owner.New(p.role.ownerConfig(p.number), p.role.log.Epoch(), k.state)
	p.next, p.stored, p.changed = k.next, -1, make(map[string]bool)
	p.requestsMS, p.ridesMS = k.requestsMS, k.ridesMS
	p.searches, p.proposed = make(map[string]search), make(map[string]string)
	if p.ranks, err = newRanks(p.role.zones.Of(p.number), p.role.cfg.ZoneGrace); err != nil {
		return err
	}
	p.inbox = p.role.board.join(p.number)
	defer p.role.board.leave(p.number, p.inbox)
	defer p.role.desk.leave(p.number)

	reading, stop := context.WithCancel(ctx)
	p.stopRequests = func() {}
	defer p.readers.Wait()
	defer func() { p.stopRequests() }()
	defer stop()
	p.rides = make(chan read)
	p.readers.Go(func() { p.read(reading, topics.Rides, p.next, p.rides) })
	p.readers.Go(func() {
		if err := p.role.directory.follow(reading, p.number, stored); err != nil {
			select {
			case p.rides <- read{err: err}:
			case <-reading.Done():
			}
		}
	})
	return p.loop(ctx, reading)
}

func (p *partition) loop(ctx, reading context.Context) error {
	match := time.NewTicker(p.role.cfg.MatchInterval)
	defer match.Stop()
	progress := time.NewTicker(progressInterval)
	defer progress.Stop()
	checkpoint := time.NewTicker(p.role.cfg.CheckpointInterval)
	defer checkpoint.Stop()
	var queueing <-chan time.Time // nil without zones
	if len(p.ranks) > 0 || len(p.owner.State().Queues()) > 0 {
		queue := time.NewTicker(queueInterval)
		defer queue.Stop()
		queueing = queue.C
	}
	for {
		if err := p.act(ctx, reading); err != nil {
			return err
		}
		if p.matchNow(ctx) {
			continue
		}
		// A partition in which no ride goes on wakes for what comes, and for nothing
		// else.
		var matching, progressing <-chan time.Time
		if p.owner.State().Active() > 0 {
			matching = match.C
		}
		if p.owner.Asking() {
			progressing = progress.C
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.claim.Revoked():
			return p.checkpoint(ctx)
		case r := <-p.rides:
			if err := p.readRides(r); err != nil {
				return err
			}
		case r := <-p.requests:
			if err := p.readRequests(ctx, r); err != nil {
				return err
			}
		case <-p.done.wake:
			for _, d := range p.done.take() {
				if d.err != nil && retry.Sleep(ctx, failurePause) != nil {
					return ctx.Err() // what failed is appended again: not in a hot loop
				}
				p.owner.Completed(d.token, d.offset, d.err != nil, errors.Is(d.err, eventlog.ErrFull) || errors.Is(d.err, eventlog.ErrTooLarge))
			}
		case <-p.inbox.wake:
			p.readTracks()
		case <-progressing:
			p.readTracks()
		case <-matching:
			p.readTracks()
			p.owner.Tick(p.role.now().UnixMilli())
			p.match(ctx)
		case <-queueing:
			p.owner.Tick(p.role.now().UnixMilli())
			p.updateQueues()
		case <-checkpoint.C:
			if err := p.checkpoint(ctx); err != nil {
				return err
			}
		}
	}
}

// act appends what the owner has decided and publishes what it has read back.
func (p *partition) act(ctx, reading context.Context) error {
	now := p.role.now()
	if p.owner.MustTakeOver() || p.owner.Leading() && now.Sub(p.tookOver) >= takeoverInterval {
		// Requests are read anew behind the takeover.
		p.stopRequests()
		p.requests = nil
		p.tookOver = now
		p.owner.TakeOver(rand.Uint64()|1, p.role.address)
	}
	if p.owner.Leading() && p.requests == nil {
		var requesting context.Context
		requesting, p.stopRequests = context.WithCancel(reading)
		ch := make(chan read)
		p.requests = ch
		from := p.owner.NextRequest()
		p.readers.Go(func() { p.read(requesting, topics.RideRequests, from, ch) })
	}
	appends, events := p.owner.Take()
	for _, a := range appends {
		if err := p.append(ctx, a); err != nil {
			return err
		}
	}
	if p.owner.Leading() {
		p.role.advanced(p.number, p.owner.RequestsBelow(), p.next)
	}
	if len(events) > 0 {
		for _, e := range events {
			p.changed[e.GetRide()] = true
			delete(p.proposed, e.GetRide())
			p.role.metrics.events.WithLabelValues(kindLabel(e.GetKind())).Inc()
		}
		p.watchBound()
	}
	return nil
}

// watchBound sets whom the board reports in any case: the vehicles that are
// bound.
func (p *partition) watchBound() {
	b := p.inbox.board
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watch(p.number, p.owner.BoundVehicles())
}

func (p *partition) append(ctx context.Context, a owner.Append) error {
	topic, value := topics.Rides, []byte(nil)
	if a.Location != nil {
		topic, value = topics.Locations, a.Location.Append(nil)
	} else {
		var err error
		if value, err = proto.Marshal(a.Ride); err != nil {
			return fmt.Errorf("encode a record of rides: %w", err)
		}
	}
	err := p.role.log.Append(ctx, topic, a.Partition, eventlog.Record{Key: []byte(a.Key), Value: value}, p.done.of(a.Token))
	if err != nil && ctx.Err() == nil && !errors.Is(err, eventlog.ErrClosed) {
		// It was not queued: certainly not in the log.
		p.done.put(outcome{a.Token, -1, fmt.Errorf("%w: %w", eventlog.ErrFull, err)})
		return nil
	}
	if err != nil {
		return fmt.Errorf("append to %s: %w", topic, err)
	}
	return nil
}

func (p *partition) readRides(r read) error {
	if r.err != nil {
		return fmt.Errorf("read %s: %w", topics.Rides, r.err)
	}
	led := p.owner.Leading()
	for _, stored := range r.batch.Records {
		var record starlingv1.RideRecord
		if err := proto.Unmarshal(stored.Value, &record); err != nil {
			return fmt.Errorf("decode %s at offset %d: %w", topics.Rides, stored.Offset, err)
		}
		verdict := p.owner.ReadRide(stored.Offset, &record)
		p.next, p.ridesMS = stored.Offset+1, max(p.ridesMS, stored.AppendTimeMS)
		p.role.metrics.records.WithLabelValues(verdictLabel(verdict)).Inc()
		if verdict == life.TookOver {
			p.stopRequests()
			p.requests = nil
			p.watchBound()
		}
	}
	if p.owner.Leading() && !led {
		p.role.leading(p.number, true)
		p.logger.Info("owns a partition of rides", "generation", p.owner.State().Owner.Generation, "rides", p.owner.State().Rides())
	}
	return nil
}

func (p *partition) readRequests(ctx context.Context, r read) error {
	if r.err != nil {
		return fmt.Errorf("read %s: %w", topics.RideRequests, r.err)
	}
	p.owner.Tick(p.role.now().UnixMilli())
	for _, stored := range r.batch.Records {
		var record starlingv1.RideRequestRecord
		if err := proto.Unmarshal(stored.Value, &record); err != nil {
			if err := p.setAside(ctx, &stored, err); err != nil {
				return err
			}
			record.Reset() // a request without effect: the watermark passes it
		}
		p.requestsMS = max(p.requestsMS, stored.AppendTimeMS)
		p.owner.ReadRequest(stored.Offset, stored.AppendTimeMS, &record)
	}
	return nil
}

// setAside keeps a request that can't be decoded as a dead letter. It returns when
// the log has it, so that none is passed over and lost; one that fails ends the
// partition, whose next owner reads it again.
func (p *partition) setAside(ctx context.Context, stored *eventlog.Stored, fault error) error {
	letter := deadletter.Letter{
		Topic: topics.RideRequests, Partition: p.number, Offset: stored.Offset, AppendTimeMS: stored.AppendTimeMS,
		Key: stored.Key, Value: stored.Value, Error: fault.Error(),
	}
	record, err := letter.Record()
	if err != nil {
		return err
	}
	done := newOutcomes()
	if err := p.role.log.Append(ctx, topics.DeadLetters, p.number, record, done.of(0)); err != nil {
		return fmt.Errorf("append a dead letter: %w", err)
	}
	select {
	case <-done.wake:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := done.take()[0].err; err != nil {
		return fmt.Errorf("append a dead letter: %w", err)
	}
	p.role.metrics.deadLetters.Inc()
	p.logger.Warn("a request could not be decoded and is a dead letter", "offset", stored.Offset, "error", fault)
	return nil
}

// readTracks takes what the trackers have published.
func (p *partition) readTracks() {
	sightings, advanced := p.inbox.take()
	for i := range sightings {
		p.owner.See(sightings[i].source, &sightings[i].view)
	}
	for _, n := range slices.Sorted(maps.Keys(advanced)) {
		p.owner.Advance(n, advanced[n].source, advanced[n].streamMS)
	}
}

// read polls a topic's partition and hands over what it gets until ctx is done.
func (p *partition) read(ctx context.Context, topic string, from int64, to chan<- read) {
	send := func(r read) {
		select {
		case to <- r:
		case <-ctx.Done():
		}
	}
	reader, err := p.role.log.NewReader(ctx, topic, map[int32]int64{p.number: from})
	if err != nil {
		send(read{err: err})
		return
	}
	defer func() { _ = reader.Close() }()
	for {
		batch, err := reader.Poll(ctx)
		if ctx.Err() != nil {
			return
		}
		send(read{batch, err})
		if err != nil {
			return
		}
	}
}

// checkpoint stores the rides that changed. A crash before it is stored leaves
// the one before: its successor reads the same records again.
func (p *partition) checkpoint(ctx context.Context) error {
	forgotten := p.owner.Forget(func(name string) bool { return p.role.nameOver(name, p.requestsMS) })
	for _, name := range forgotten {
		delete(p.changed, name)
	}
	p.forgotten = append(p.forgotten, forgotten...)
	if p.next == p.stored && len(p.forgotten) == 0 {
		return nil // nothing has been read since
	}
	state := p.owner.State()
	stands := kept{state: *state, next: p.next, requestsMS: p.requestsMS, ridesMS: p.ridesMS}
	records, err := changes(&stands, slices.Sorted(maps.Keys(p.changed)), p.forgotten)
	if err != nil {
		return err
	}
	if err := p.claim.Checkpoint(ctx, records, state.RequestsBelow); err != nil {
		return fmt.Errorf("checkpoint rides: %w", err)
	}
	p.stored = p.next
	clear(p.changed)
	p.forgotten = nil
	return nil
}

// outcomes collects completions of appends without blocking the log.
type outcomes struct {
	wake chan struct{}
	mu   sync.Mutex
	all  []outcome
}

type outcome struct {
	token  uint64
	offset int64
	err    error
}

func newOutcomes() *outcomes { return &outcomes{wake: make(chan struct{}, 1)} }

func (o *outcomes) put(d outcome) {
	o.add(d)
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *outcomes) add(d outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, d)
}

func (o *outcomes) take() []outcome {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := o.all
	o.all = nil
	return all
}

// of returns the completion of one append.
func (o *outcomes) of(token uint64) eventlog.Completion { return completion{o, token} }

type completion struct {
	to    *outcomes
	token uint64
}

func (c completion) Done(offset int64, err error) { c.to.put(outcome{c.token, offset, err}) }
