package app

import (
	"fmt"
	"io"
	"log/slog"
)

func (c LogConfig) level() (slog.Level, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return 0, fmt.Errorf("level is %q: must be debug, info, warn or error", c.Level)
	}
	return level, nil
}

// NewLogger returns the logger that the configuration asks for.
func NewLogger(c LogConfig, w io.Writer) (*slog.Logger, error) {
	level, err := c.level()
	if err != nil {
		return nil, err
	}
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return slog.New(slog.NewTextHandler(w, opts)), nil
}
