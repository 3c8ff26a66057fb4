package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Guard stands before the servers of a process. It is safe for concurrent use.
type Guard struct {
	cfg    Config
	logger *slog.Logger
	keys   *keyring
	// verify is nil in development mode without keys: then everybody is let in
	// as anyone.
	verify *verifier
	seal   *sealer
	now    func() time.Time

	refusals *prometheus.CounterVec
	forUs    *serviceToken
}

// anyone is the caller in development mode without keys.
var anyone = &Caller{Issuer: "dev", Subject: "dev", Scopes: allScopes, Vehicle: "*", dev: true}

// Deps are what a guard works with.
type Deps struct {
	// Dev is development mode: without keys everybody is let in.
	Dev        bool
	Registerer prometheus.Registerer
	Logger     *slog.Logger
	// Now is the wall clock by which tokens are judged; nil means the machine's.
	Now func() time.Time
}

// New builds a guard and registers its metrics. It reads nothing before Start.
func New(cfg Config, deps Deps) (*Guard, error) {
	if err := cfg.Validate(deps.Dev); err != nil {
		return nil, err
	}
	if !deps.Dev && !cfg.HasKeys() {
		return nil, ErrNoIdentity
	}
	g := &Guard{cfg: cfg, logger: deps.Logger, now: deps.Now}
	if g.now == nil {
		g.now = time.Now
	}
	g.keys = newKeyring(cfg, deps.Logger, g.now)
	g.forUs = &serviceToken{path: cfg.ServiceTokenFile, every: cfg.RefreshInterval}
	if cfg.HasKeys() {
		g.verify = newVerifier(cfg, g.keys, g.now)
	}
	if err := g.register(deps.Registerer); err != nil {
		return nil, fmt.Errorf("register the metrics of identity: %w", err)
	}
	return g, nil
}

// ErrNoIdentity is the error for a process that would let nobody in.
var ErrNoIdentity = errors.New("callers can't prove who they are: set auth.keys_file or auth.jwks_url with auth.issuer (docs/identity.md), or use --dev to let everybody in on loopback")

// Open is a guard that lets everybody in, for tests and measurements of servers
// without a process around them.
func Open() *Guard {
	g, err := New(DefaultConfig(), Deps{Dev: true, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err) // the configuration is a constant
	}
	return g
}

func (g *Guard) register(reg prometheus.Registerer) error {
	g.refusals = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "starling_auth_refusals_total", Help: "Calls and requests refused because of who the caller is, by server and reason (docs/identity.md).",
	}, []string{"server", "reason"})
	all := []prometheus.Collector{g.refusals}
	if g.verify != nil {
		gauge := func(name, help string, value func() float64) prometheus.Collector {
			return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "starling_auth_" + name, Help: help}, value)
		}
		all = append(all,
			gauge("keys", "Keys that tokens may be signed with.", func() float64 { return float64(len(*g.keys.byID.Load())) }),
			gauge("keys_age_seconds", "Time since the keys were last read. Beyond auth.keep_keys every token is refused.", func() float64 { return g.keys.age().Seconds() }),
			gauge("known_tokens", "Verified tokens that are remembered.", func() float64 { return float64(g.verify.cache.size()) }),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "starling_auth_key_reads_total", Help: "Reads of the keys."}, func() float64 { return float64(g.keys.reads.Load()) }),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "starling_auth_keys_passed_over_total", Help: "Keys of a JWKS that can't be used and were passed over, counted at each read; they are logged."}, func() float64 { return float64(g.keys.passedOver.Load()) }),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "starling_auth_key_read_failures_total", Help: "Reads of the keys that failed; the last keys count for auth.keep_keys."}, func() float64 { return float64(g.keys.failed.Load()) }),
		)
	}
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// Start reads the keys and secrets. It fails when one can't be read.
func (g *Guard) Start(ctx context.Context) error {
	if g.verify == nil {
		return nil
	}
	var secret []byte
	if file := g.cfg.PageKeyFile; file != "" {
		var err error
		if secret, err = readSecret(file); err != nil {
			return fmt.Errorf("auth.page_key_file: %w", err)
		}
	}
	g.seal = newSealer(secret)
	if err := g.keys.read(ctx); err != nil {
		return fmt.Errorf("read the keys of tokens: %w", err)
	}
	return nil
}

// Run reads the keys again and again until ctx is done.
func (g *Guard) Run(ctx context.Context) error {
	if g.verify == nil {
		<-ctx.Done()
		return nil
	}
	g.keys.run(ctx, func() { g.verify.cache.sweep(g.now()) })
	return nil
}

// Reload reads the keys now.
func (g *Guard) Reload(ctx context.Context) error {
	if g.verify == nil {
		return nil
	}
	err := g.keys.read(ctx)
	g.verify.cache.sweep(g.now())
	return err
}

// Asks reports whether callers have to prove who they are.
func (g *Guard) Asks() bool { return g.verify != nil }

// caller returns whom the value of an Authorization header names.
func (g *Guard) caller(header []string) (*Caller, *Refusal) {
	if g.verify == nil {
		return anyone, nil
	}
	token, r := bearer(header)
	if r != nil {
		return nil, r
	}
	return g.verify.caller(token)
}

// bearer returns the token of a header authorization.
func bearer(header []string) (string, *Refusal) {
	if len(header) == 0 {
		return "", refuse(Missing, "a token is needed: send it as the header authorization: Bearer TOKEN")
	}
	if len(header) > 1 {
		return "", refuse(Malformed, "there is more than one header authorization")
	}
	scheme, token, ok := strings.Cut(header[0], " ")
	if !ok || !strings.EqualFold(scheme, "bearer") {
		return "", refuse(Malformed, "the header authorization must be: Bearer TOKEN")
	}
	return strings.TrimSpace(token), nil
}

// refused counts a refusal.
func (g *Guard) refused(server string, r *Refusal) error {
	g.refusals.WithLabelValues(server, string(r.Reason)).Inc()
	return r.Err()
}
