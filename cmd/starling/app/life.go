package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-fleet/starling/internal/version"
)

// life is what a process knows of its own stop, and of what is read again while it
// runs.
type life struct {
	stopping atomic.Int64 // since when it stops, in Unix nanoseconds; zero before

	mu      sync.Mutex
	hooks   []reloadHook
	reloads *prometheus.CounterVec
}

type reloadHook struct {
	name string
	run  func() error
}

func newLife(reg prometheus.Registerer) *life {
	build := version.Read()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "starling_build_info", Help: "Always 1; its labels say which build this is.",
		ConstLabels: prometheus.Labels{"version": build.Version, "revision": build.Revision, "go": build.Go},
	})
	info.Set(1)
	l := &life{reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "starling_reloads_total", Help: "Times that something was read again after SIGHUP, by part and result (ok, failed). After a failure what was in force stays in force.",
	}, []string{"part", "result"})}
	reg.MustRegister(info, l.reloads)
	return l
}

// watch notes the moment from which the process stops.
func (l *life) watch(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { l.stopping.Store(time.Now().UnixNano()) })
}

func (l *life) isStopping() bool { return l.stopping.Load() != 0 }

// whileRunning is readiness that ends at the moment of the stop: whoever balances
// load is to send nothing more while the last calls are answered.
func (l *life) whileRunning(ready func() bool) func() bool {
	return func() bool { return !l.isStopping() && ready() }
}

// left is how much of a time that began with the stop is left, and at least a
// moment.
func (l *life) left(of time.Duration) time.Duration {
	const least = 100 * time.Millisecond
	since := l.stopping.Load()
	if since == 0 { // a part of the process ended by itself
		return of
	}
	return max(least, of-time.Since(time.Unix(0, since)))
}

// OnReload has a function run by every Reload, under a name for log and metrics.
// It is called one at a time, in the order of the registrations.
func (a *App) OnReload(name string, run func() error) {
	a.life.mu.Lock()
	defer a.life.mu.Unlock()
	a.life.hooks = append(a.life.hooks, reloadHook{name, run})
}

// Reload reads again what can change while the process runs: the log's file,
// certificates and keys. What can't be read stays as it was; the error names it.
func (a *App) Reload() error {
	a.life.mu.Lock()
	defer a.life.mu.Unlock()
	var faults []error
	for _, hook := range slices.Clone(a.life.hooks) {
		result := "ok"
		if err := hook.run(); err != nil {
			result = "failed"
			faults = append(faults, fmt.Errorf("%s: %w", hook.name, err))
			a.logger.Error("a part could not be read again, what was in force stays", "part", hook.name, "error", err)
		} else {
			a.logger.Info("read again", "part", hook.name)
		}
		a.life.reloads.WithLabelValues(hook.name, result).Inc()
	}
	return errors.Join(faults...)
}

// announceStart is the first line of a process's log.
func announceStart(logger *slog.Logger, roles []Role) {
	build := version.Read()
	logger.Info("starting", "version", build.Version, "revision", build.Revision, "modified", build.Modified, "go", build.Go, "platform", build.Platform, "roles", roles)
}
