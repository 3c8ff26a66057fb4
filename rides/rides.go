package rides

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/internal/budget"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/matcher/eta"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/rides/events"
	"github.com/starling-fleet/starling/rides/name"
	"github.com/starling-fleet/starling/rides/owner"
	"github.com/starling-fleet/starling/rides/zone"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
)

// Log is the part of eventlog.Log that the role needs.
type Log interface {
	eventlog.Appender
	Partitions() int32
	Epoch() int64
	Bounds(ctx context.Context, topic string) ([]eventlog.Bounds, error)
	NewReader(ctx context.Context, topic string, start map[int32]int64) (eventlog.Reader, error)
	Own(ctx context.Context, spec eventlog.OwnSpec, serve eventlog.Serve) error
}

// Fleet is where the vehicles are: a matcher of the same process.
type Fleet interface {
	// Nearest appends to dst the vehicles nearest to a place.
	Nearest(q liveindex.Query, dst []liveindex.Hit) []liveindex.Hit
	// Vehicle returns a vehicle as it was published last.
	Vehicle(id string) (liveindex.Vehicle, bool)
	// Ready returns whether the fleet has been rebuilt.
	Ready() bool
}

// Deps are what the role works with.
type Deps struct {
	Log        Log
	Fleet      Fleet
	Registerer prometheus.Registerer
	Logger     *slog.Logger
	// Estimator estimates how long vehicles take to pickups; nil means by distance.
	Estimator eta.Estimator
	// Now is the wall clock of timers; nil means time.Now.
	Now func() time.Time
	// Address is where this process answers calls about rides, host and port;
	// takeovers name it unless Config.Advertise is set. Empty when it does not.
	Address string
	// Store carries events between nodes; nil means one within this process. The
	// caller closes what it stands on after Run.
	Store events.Store
	// DialOptions are added to those of the connections to other nodes.
	DialOptions []grpc.DialOption
}

// Rides is the role. Register its service with a gRPC server, pass every record
// of `tracks` to Observe, and call Run once.
type Rides struct {
	starlingv1.UnimplementedRideServiceServer
	cfg       Config
	log       Log
	fleet     Fleet
	logger    *slog.Logger
	now       func() time.Time
	address   string
	names     *name.Maker
	zones     *zone.Map
	metrics   *metrics
	board     *board
	desk      *desk
	estimator eta.Estimator
	directory *directory
	store     events.Store
	feeds     *feeds
	exchange  *exchange
	peers     *peers
	scanning  chan struct{} // has an element while the log is read for one ride

	assigned    eventlog.Assignment
	subscribers *budget.Shares[string]
	stopped     chan struct{} // closed when Run has ended

	mu  sync.Mutex
	led map[int32]*lead
}

// lead is how far the requests of a partition that is owned here have had their
// effect.
type lead struct {
	requestsBelow, next int64
	changed             chan struct{} // closed at the next change
}

// New returns a role that does nothing yet. It fails when cfg breaks a rule or
// the registerer has another one's metrics.
func New(cfg Config, deps Deps) (*Rides, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("rides configuration: %w", err)
	}
	keys, err := cfg.keys()
	if err != nil {
		return nil, fmt.Errorf("rides configuration: %w", err)
	}
	names, err := name.NewMaker(keys...)
	if err != nil {
		return nil, fmt.Errorf("rides configuration: %w", err)
	}
	matcher, err := cfg.matcher()
	if err != nil {
		return nil, fmt.Errorf("rides configuration: %w", err)
	}
	zones, err := zone.Parse(cfg.Zones, func(name string) int32 { return eventlog.PartitionOf([]byte(name), deps.Log.Partitions()) })
	if err != nil {
		return nil, fmt.Errorf("rides configuration: zones: %w", err)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Estimator == nil {
		deps.Estimator = byDistance
	}
	m, err := newMetrics(deps.Registerer)
	if err != nil {
		return nil, fmt.Errorf("rides metrics: %w", err)
	}
	if deps.Store == nil {
		deps.Store = events.NewMemory(events.DefaultBounds(), nil)
	}
	if cfg.Advertise != "" {
		deps.Address = cfg.Advertise
	}
	r := &Rides{
		cfg: cfg, log: deps.Log, fleet: deps.Fleet, logger: deps.Logger, now: deps.Now, address: deps.Address, names: names, zones: zones, metrics: m,
		desk: newDesk(matcher, cfg.AskedFor, deps.Now), estimator: deps.Estimator,
		board: newBoard(deps.Log.Epoch(), deps.Log.Partitions()), directory: newDirectory(deps.Log, cfg.NameAge, cfg.IndexAge),
		store: deps.Store, peers: newPeers(deps.Log, deps.Address, deps.DialOptions),
		scanning: make(chan struct{}, 1), subscribers: budget.NewShares[string](cfg.MaxSubscribers), stopped: make(chan struct{}), led: make(map[int32]*lead),
	}
	r.feeds, r.exchange = newFeeds(r), newExchange(r)
	r.directory.happened, r.directory.caughtUp = r.exchange.happened, r.exchange.caughtUp
	return r, nil
}

// Observe takes the next record of a partition of `tracks`, in order, and does
// not keep it. One goroutine calls it.
func (r *Rides) Observe(partition int32, t *wire.Track) { r.board.observe(partition, t) }

// Ready returns whether the partitions that fell to this process are served.
func (r *Rides) Ready() bool {
	share, joined := r.assigned.Partitions()
	if !joined {
		return false
	}
	led := r.partitions()
	return len(led) >= share && !slices.ContainsFunc(led, func(n int32) bool { return !r.directory.ready(n) })
}

// partitions are those that are led here.
func (r *Rides) partitions() []int32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.led))
}

// Run serves partitions until ctx is done and then returns nil. When the log
// fails to take a record, all partitions are given up and taken up again after a
// pause.
func (r *Rides) Run(ctx context.Context) error {
	defer r.peers.close()
	defer close(r.stopped)
	running, stop := context.WithCancel(ctx)
	defer stop()
	var working sync.WaitGroup
	working.Go(func() { r.exchange.run(running) })
	working.Go(func() { r.exchange.compare(running) })
	delivering := make(chan error, 1)
	go func() {
		err := r.store.Run(running, r.feeds.deliver)
		stop()
		delivering <- err
	}()
	err := r.own(running)
	stop()
	working.Wait()
	if err = errors.Join(err, <-delivering); err != nil {
		return fmt.Errorf("rides: %w", err)
	}
	return nil
}

// leads returns whether a partition is owned here.
func (r *Rides) leads(n int32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, leads := r.led[n]
	return leads
}

// retryInterval is the pause before partitions are taken up again.
const retryInterval = time.Second

func (r *Rides) own(ctx context.Context) error {
	// The fleet comes first: an owner that can't see it would find no vehicle.
	for !r.fleet.Ready() {
		if retry.Sleep(ctx, 20*time.Millisecond) != nil {
			return nil
		}
	}
	spec := eventlog.OwnSpec{Group: r.cfg.Group, Source: topics.RideRequests, State: topics.RidesState, Assigned: &r.assigned}
	for {
		err := r.log.Own(ctx, spec, r.serve)
		r.assigned.Reset()
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			return errors.New("the log ended the ownership of partitions")
		}
		if errors.Is(err, eventlog.ErrClosed) {
			return err
		}
		r.logger.Warn("gave up the partitions of rides because the log failed", "error", err, "again_in", retryInterval)
		if retry.Sleep(ctx, retryInterval) != nil {
			return nil
		}
	}
}

// serve is the life of one partition in this process.
func (r *Rides) serve(ctx context.Context, claim eventlog.Claim) error {
	p := &partition{role: r, claim: claim, number: claim.Partition(), done: newOutcomes(), logger: r.logger.With("partition", claim.Partition())}
	defer r.leading(p.number, false)
	err := p.run(ctx)
	if ctx.Err() != nil {
		return nil // the claim is lost: its next holder is authoritative
	}
	if err != nil {
		return fmt.Errorf("partition %d: %w", p.number, err)
	}
	return nil
}

// leading notes that a partition is led here, or is not any more.
func (r *Rides) leading(n int32, leads bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, was := r.led[n]
	switch {
	case leads && !was:
		r.led[n] = &lead{changed: make(chan struct{})}
		r.metrics.owned.Inc()
	case !leads && was:
		close(l.changed)
		delete(r.led, n)
		r.metrics.owned.Dec()
	}
}

// advanced notes how far the requests of a partition have had their effect, as
// read back up to an offset of `rides`.
func (r *Rides) advanced(n int32, requestsBelow, next int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, ok := r.led[n]
	if !ok || l.requestsBelow == requestsBelow && l.next == next {
		return
	}
	l.requestsBelow, l.next = requestsBelow, next
	close(l.changed)
	l.changed = make(chan struct{})
}

// effect waits until the request at an offset has had its effect, and returns the
// offset in `rides` below which the effect is. It fails with errElsewhere when
// the partition is not led here.
func (r *Rides) effect(ctx context.Context, n int32, offset int64) (int64, error) {
	for {
		l, ok := r.ledNow(n)
		if !ok {
			return 0, errElsewhere
		}
		if l.requestsBelow > offset {
			return l.next, nil
		}
		select {
		case <-l.changed:
		case <-r.stopped:
			return 0, errStopped
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// ledNow is how far a partition that is led here has come, and false if it is not.
func (r *Rides) ledNow(n int32) (lead, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, ok := r.led[n]
	if !ok {
		return lead{}, false
	}
	return *l, true
}

func partitionOf(ride string) (int32, error) {
	parts, err := name.Parse(ride)
	return parts.Partition, err
}

// ownerConfig is what the owner of a partition is set to.
func (r *Rides) ownerConfig(n int32) owner.Config {
	mode := owner.Auto
	if r.cfg.Offer > 0 {
		mode = owner.Offer
	}
	partitions := r.log.Partitions()
	return owner.Config{
		Partition: n, Partitions: partitions, Mode: mode, OfferMS: r.cfg.Offer.Milliseconds(), DecideMS: r.cfg.Decide.Milliseconds(),
		MaxFixAgeMS: r.cfg.MaxFixAge.Milliseconds(), SearchMS: r.cfg.Search.Milliseconds(), SilenceMS: r.cfg.Silence.Milliseconds(), MaxPromisesBytes: 512 << 10,
		ArrivingM: r.cfg.ArrivingM, ArrivedM: r.cfg.ArrivedM, ArrivedMS: r.cfg.ArrivedAfter.Milliseconds(),
		PartitionOf: func(id string) int32 { return eventlog.PartitionOf([]byte(id), partitions) },
		OwnsRide: func(ride string) bool {
			of, err := partitionOf(ride)
			return err == nil && of == n
		},
		Acceptable: r.acceptable,
	}
}

// maxNameAhead is how far a name's time may be ahead of its request's append
// stamp: the clocks of processes differ.
const maxNameAhead = 5 * time.Minute

// nameOver returns whether no request for a name can create its ride any more, in
// a partition whose stream time has come so far.
func (r *Rides) nameOver(ride string, streamMS int64) bool {
	return nameOver(ride, streamMS, r.cfg.NameAge)
}

func nameOver(ride string, streamMS int64, age time.Duration) bool {
	parts, err := name.Parse(ride)
	return err == nil && streamMS-parts.Made.UnixMilli() > (age+maxNameAhead).Milliseconds()
}

// acceptable returns whether a request may create the ride of a name.
func (r *Rides) acceptable(ride string, appendMS int64) bool {
	parts, err := name.Parse(ride)
	age := time.Duration(appendMS-parts.Made.UnixMilli()) * time.Millisecond
	return err == nil && age <= r.cfg.NameAge && age >= -maxNameAhead
}
