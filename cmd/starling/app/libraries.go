package app

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc/grpclog"
)

// grpcLines is where gRPC logs, which knows one logger for the whole program.
var grpcLines = &grpcLogger{}

// gRPC wants its logger before anything else of it is used.
func init() { grpclog.SetLoggerV2(grpcLines) }

// grpcLogger passes gRPC's lines on to the process's log: what it calls
// information is debugging to an operator. Before a process runs, and in commands
// that only call one, nothing is logged: they report errors themselves.
type grpcLogger struct{ to atomic.Pointer[slog.Logger] }

var _ grpclog.DepthLoggerV2 = (*grpcLogger)(nil)

func (g *grpcLogger) use(logger *slog.Logger) { g.to.Store(logger.With("component", "grpc")) }

func (g *grpcLogger) enabled(level slog.Level) *slog.Logger {
	logger := g.to.Load()
	if logger == nil || !logger.Enabled(context.Background(), level) {
		return nil
	}
	return logger
}

func (g *grpcLogger) log(level slog.Level, args []any) {
	if logger := g.enabled(level); logger != nil {
		logger.Log(context.Background(), level, strings.TrimSpace(fmt.Sprint(args...)))
	}
}

func (g *grpcLogger) logf(level slog.Level, format string, args []any) {
	if logger := g.enabled(level); logger != nil {
		logger.Log(context.Background(), level, fmt.Sprintf(format, args...))
	}
}

// Info and the other methods implement grpclog.LoggerV2.
func (g *grpcLogger) Info(args ...any)                    { g.log(slog.LevelDebug, args) }
func (g *grpcLogger) Infoln(args ...any)                  { g.log(slog.LevelDebug, args) }
func (g *grpcLogger) Infof(format string, args ...any)    { g.logf(slog.LevelDebug, format, args) }
func (g *grpcLogger) InfoDepth(_ int, args ...any)        { g.log(slog.LevelDebug, args) }
func (g *grpcLogger) Warning(args ...any)                 { g.log(slog.LevelWarn, args) }
func (g *grpcLogger) Warningln(args ...any)               { g.log(slog.LevelWarn, args) }
func (g *grpcLogger) Warningf(format string, args ...any) { g.logf(slog.LevelWarn, format, args) }
func (g *grpcLogger) WarningDepth(_ int, args ...any)     { g.log(slog.LevelWarn, args) }
func (g *grpcLogger) Error(args ...any)                   { g.log(slog.LevelError, args) }
func (g *grpcLogger) Errorln(args ...any)                 { g.log(slog.LevelError, args) }
func (g *grpcLogger) Errorf(format string, args ...any)   { g.logf(slog.LevelError, format, args) }
func (g *grpcLogger) ErrorDepth(_ int, args ...any)       { g.log(slog.LevelError, args) }

// Fatal is an error too: gRPC calls os.Exit itself if this returns.
func (g *grpcLogger) Fatal(args ...any)                 { g.log(slog.LevelError, args) }
func (g *grpcLogger) Fatalln(args ...any)               { g.log(slog.LevelError, args) }
func (g *grpcLogger) Fatalf(format string, args ...any) { g.logf(slog.LevelError, format, args) }
func (g *grpcLogger) FatalDepth(_ int, args ...any)     { g.log(slog.LevelError, args) }

// V reports whether verbose lines are wanted.
func (g *grpcLogger) V(int) bool { return g.enabled(slog.LevelDebug) != nil }
