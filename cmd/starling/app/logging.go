package app

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/starling-fleet/starling/internal/throttle"
)

func (c LogConfig) level() (slog.Level, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return 0, fmt.Errorf("level is %q: must be debug, info, warn or error", c.Level)
	}
	return level, nil
}

// NewLogger returns the logger that the configuration asks for. Durations are
// written with their unit in either form, and repeated warnings are suppressed.
func NewLogger(c LogConfig, w io.Writer) (*slog.Logger, error) {
	level, err := c.level()
	if err != nil {
		return nil, err
	}
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: readable}
	var handler slog.Handler = slog.NewTextHandler(w, opts)
	if c.Format == "json" {
		handler = slog.NewJSONHandler(w, opts)
	}
	return slog.New(throttle.NewHandler(handler)), nil
}

// readable writes durations as 1.5s rather than as a number of nanoseconds.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() != slog.KindDuration {
		return a
	}
	d := a.Value.Duration()
	switch {
	case d.Abs() > time.Second:
		d = d.Round(time.Millisecond)
	case d.Abs() > time.Millisecond:
		d = d.Round(time.Microsecond)
	}
	a.Value = slog.StringValue(d.String())
	return a
}

// LogOutput is where the process's log goes: standard error, or the file that
// the configuration names. It is safe for concurrent use.
type LogOutput struct {
	path string

	mu   sync.Mutex
	file *os.File // nil for standard error
	w    io.Writer
}

// OpenLogOutput opens it. The caller closes it.
func OpenLogOutput(c LogConfig, stderr io.Writer) (*LogOutput, error) {
	o := &LogOutput{path: c.File, w: stderr}
	return o, o.Reopen()
}

// Write implements io.Writer.
func (o *LogOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.w.Write(p)
}

// Reopen goes on in a file of the configured name, which is made if it is not
// there: after a rotation has renamed the one that was written. When that fails
// the log goes on where it was.
func (o *LogOutput) Reopen() error {
	if o.path == "" {
		return nil
	}
	file, err := os.OpenFile(o.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("log: file: %w", err)
	}
	o.mu.Lock()
	former := o.file
	o.file, o.w = file, file
	o.mu.Unlock()
	if former != nil {
		return former.Close()
	}
	return nil
}

// Close closes the file. What is logged afterwards is lost.
func (o *LogOutput) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file == nil {
		return nil
	}
	err := o.file.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
