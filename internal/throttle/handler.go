package throttle

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Bounds of a Handler.
const (
	// handlerInterval is the stretch in which handlerBurst lines that are alike
	// pass; the others are counted, and the next that passes carries their number.
	handlerInterval = 10 * time.Second
	handlerBurst    = 5
	// handlerKinds bounds how many kinds of lines are remembered.
	handlerKinds = 1024
)

// Handler is a slog.Handler that keeps repeated warnings and errors from filling
// the log. Lines are alike that have level, the constant part of the message and
// the logger's own attributes in common; those of a line itself may differ.
type Handler struct {
	next   slog.Handler
	origin string // of the logger: its attributes and groups
	kinds  *kinds
}

// NewHandler returns a handler before another.
func NewHandler(next slog.Handler) *Handler {
	return &Handler{next: next, kinds: &kinds{seen: map[kind]*repeats{}}}
}

// constant is the part of a message before anything that differs from line to line:
// libraries put addresses and what a stranger has sent into theirs, so that each of
// a stranger's connections would write a line of its own.
func constant(message string) string {
	if i := strings.IndexAny(message[min(1, len(message)):], `0123456789"[`); i >= 0 {
		return message[:i+1]
	}
	return message
}

type kind struct {
	level           slog.Level
	origin, message string
}

// repeats is what is known of one kind of line.
type repeats struct {
	began      time.Time // of the stretch
	passed     int       // in it
	suppressed int64     // since the last that passed
}

type kinds struct {
	mu   sync.Mutex
	seen map[kind]*repeats
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return h.next.Handle(ctx, r)
	}
	suppressed, ok := h.kinds.pass(kind{r.Level, h.origin, constant(r.Message)}, time.Now())
	if !ok {
		return nil
	}
	if suppressed > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int64("alike_suppressed", suppressed))
	}
	return h.next.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	origin := h.origin
	for _, a := range attrs {
		origin += "\x00" + a.String()
	}
	return &Handler{next: h.next.WithAttrs(attrs), origin: origin, kinds: h.kinds}
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{next: h.next.WithGroup(name), origin: h.origin + "\x01" + name, kinds: h.kinds}
}

// pass reports whether a line passes, and how many like it have not since the last
// that did.
func (k *kinds) pass(of kind, now time.Time) (suppressed int64, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.seen[of]
	if r == nil {
		if len(k.seen) >= handlerKinds {
			clear(k.seen) // forgetting lets more through, never less
		}
		r = &repeats{began: now}
		k.seen[of] = r
	}
	if now.Sub(r.began) >= handlerInterval {
		r.began, r.passed = now, 0
	}
	if r.passed >= handlerBurst {
		r.suppressed++
		return 0, false
	}
	r.passed++
	suppressed, r.suppressed = r.suppressed, 0
	return suppressed, true
}
