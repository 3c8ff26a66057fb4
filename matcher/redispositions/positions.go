package redispositions

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/starling-fleet/starling/schemas/wire"
)

// Config sets a Sink.
type Config struct {
	// Prefix begins every key. It must not contain braces.
	Prefix string
	// OneSlot puts the prefix in braces, as a cluster needs it.
	OneSlot bool
	// Keep is how long a vehicle stays after it was written last.
	Keep time.Duration
	// MaxVehicles bounds the vehicles that are held, about 300 bytes each.
	MaxVehicles int
}

// Deps are what a Sink works with.
type Deps struct {
	// Client is closed by the caller after Run.
	Client redis.UniversalClient
	// Epoch is the log's.
	Epoch      int64
	Registerer prometheus.Registerer
	Logger     *slog.Logger
	// Now is the clock by which what nobody publishes any more is let go; nil means
	// time.Now.
	Now func() time.Time
}

// Sink writes positions to Redis.
type Sink struct {
	keys    keys
	keep    time.Duration
	client  redis.UniversalClient
	logger  *slog.Logger
	now     func() time.Time
	metrics *metrics
	wake    chan struct{} // has a value when something waits

	mu     sync.Mutex
	mirror mirror

	// Run's own:
	nonce     string    // the state's, as last seen; empty before the first answer
	suspect   bool      // a call has failed: what was written before may be lost
	rewritten time.Time // when all vehicles were last written again
	failures  int       // calls that failed in a row
}

// New returns a Sink that does nothing yet. It fails when the registerer has
// another one's metrics.
func New(cfg Config, deps Deps) (*Sink, error) {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	s := &Sink{
		keys: newKeys(cfg), keep: cfg.Keep, client: deps.Client, logger: deps.Logger, now: deps.Now, wake: make(chan struct{}, 1),
		mirror: newMirror(deps.Epoch, cfg.MaxVehicles),
	}
	var err error
	if s.metrics, err = newMetrics(deps.Registerer, s); err != nil {
		return nil, fmt.Errorf("positions in Redis: %w", err)
	}
	return s, nil
}

// Observe takes a record of `tracks` that counts, in the order of its partition,
// without keeping it. It never waits for Redis.
func (s *Sink) Observe(t *wire.Track) {
	if !t.HasLive && len(t.Fired) == 0 {
		return
	}
	if s.observe(t) {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// observe returns whether something waits to be written. All of a record is taken
// in at once: a vehicle may be in it twice, at one offset.
func (s *Sink) observe(t *wire.Track) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &s.mirror
	if t.Epoch < m.epoch {
		return false
	}
	if t.Epoch > m.epoch {
		m.begin(t.Epoch)
	}
	now := s.now()
	for i := range t.Fired {
		switch d := &t.Fired[i]; {
		case d.Forgotten:
			m.put(d.VehicleID, position{source: t.SourceOffset, gone: true}, now)
		case d.HasLive:
			m.put(d.Live.VehicleID, positionOf(&d.Live, t.SourceOffset), now)
		}
	}
	if t.HasLive {
		m.put(t.Live.VehicleID, positionOf(&t.Live, t.SourceOffset), now)
	}
	return len(m.queue) > 0
}

// Run writes until ctx is done and then returns nil. Redis's failures are counted,
// logged and waited out. It must be called once.
func (s *Sink) Run(ctx context.Context) error {
	check := time.NewTicker(checkInterval)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-check.C:
		case <-s.wake:
		}
		pause := s.drain(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// keys are the names of what lies in Redis.
type keys struct {
	vehicle                      string // what those of vehicles begin with
	fleet, times, former, status string
}

func newKeys(cfg Config) keys {
	base := cfg.Prefix
	if cfg.OneSlot {
		base = "{" + strings.TrimSuffix(cfg.Prefix, ":") + "}:"
	}
	return keys{vehicle: base + "vehicle:", fleet: base + "fleet", times: base + "fleet:times", former: base + "fleet:former", status: base + "fleet:state"}
}
