package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/starling-fleet/starling/ingest"
	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/kafkalog"
	"github.com/starling-fleet/starling/internal/locallog"
	"github.com/starling-fleet/starling/loadtest/baseline"
	"github.com/starling-fleet/starling/loadtest/pipeline"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// serveFlags are the flags of a child.
type serveFlags struct {
	kind                      pipeline.Kind
	dir, ingest, admin        string
	kafkaBrokers, topicPrefix string
}

// serveName is the subcommand of pipeline's children.
const serveName = "serve"

// serveCommand is what a child of pipelineCommand runs: the baseline, or
// Starling's ingest alone, until it gets a signal.
func serveCommand(ctx context.Context, args []string) (code int, err error) {
	var f serveFlags
	flags := newFlags(serveName)
	kind := flags.String("kind", string(pipeline.BaselineWhole), "what to serve")
	flags.StringVar(&f.dir, "dir", "", "folder of the local log")
	flags.StringVar(&f.ingest, "ingest", "127.0.0.1:0", "address of the gRPC server")
	flags.StringVar(&f.admin, "admin", "127.0.0.1:0", "address of metrics and profiles")
	flags.StringVar(&f.kafkaBrokers, "kafka-brokers", "", "brokers; empty means the local log")
	flags.StringVar(&f.topicPrefix, "kafka-topic-prefix", "", "prefix of the topics")
	if code, ok := parse(flags, args); !ok {
		return code, nil
	}
	f.kind = pipeline.Kind(*kind)
	if err := f.run(ctx); err != nil {
		return exitFailed, fmt.Errorf("serve %s: %w", f.kind, err)
	}
	return exitOK, nil
}

func (f serveFlags) run(ctx context.Context) error {
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	registry := prometheus.NewRegistry()
	log, err := f.openLog(ctx, registry, logger)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", f.ingest)
	if err != nil {
		return errors.Join(err, log.Close())
	}
	adminListener, err := net.Listen("tcp", f.admin)
	if err != nil {
		return errors.Join(err, listener.Close(), log.Close())
	}
	group, ctx := errgroup.WithContext(ctx)
	server, err := f.service(ctx, group, log, registry, logger)
	if err != nil {
		return errors.Join(err, listener.Close(), adminListener.Close(), log.Close())
	}
	admin := &http.Server{Handler: adminPages(registry), ReadHeaderTimeout: 5 * time.Second}
	group.Go(func() error { return server.Serve(listener) })
	group.Go(func() error {
		if err := admin.Serve(adminListener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		server.Stop()
		return admin.Close()
	})
	return errors.Join(group.Wait(), log.Close())
}

func (f serveFlags) openLog(ctx context.Context, reg prometheus.Registerer, logger *slog.Logger) (eventlog.Log, error) {
	if f.kafkaBrokers != "" {
		cfg := kafkalog.DefaultConfig()
		cfg.Brokers, cfg.TopicPrefix = strings.Split(f.kafkaBrokers, ","), f.topicPrefix
		return kafkalog.Open(ctx, cfg, topics.All(), reg, logger)
	}
	cfg := locallog.DefaultConfig()
	cfg.Directory = f.dir
	return locallog.Open(cfg, topics.All(), reg, logger)
}

// service makes the gRPC server and starts what runs beside it.
func (f serveFlags) service(ctx context.Context, group *errgroup.Group, log eventlog.Log, reg *prometheus.Registry, logger *slog.Logger) (*grpc.Server, error) {
	if f.kind == pipeline.StarlingIngest {
		role, err := ingest.New(ingest.DefaultConfig(), ingest.Deps{Log: log, Partitions: log.Partitions(), Registerer: reg, Logger: logger})
		if err != nil {
			return nil, err
		}
		server := grpc.NewServer(append(role.ServerOptions(), auth.Open().Server("ingest").Options()...)...)
		role.Register(server)
		group.Go(func() error { return role.Run(ctx) })
		return server, nil
	}
	if f.kind != pipeline.BaselineIngest && f.kind != pipeline.BaselineWhole {
		return nil, fmt.Errorf("-kind is %q", f.kind)
	}
	base := baseline.New(log)
	reg.MustRegister(prometheus.NewCounterFunc(
		prometheus.CounterOpts{Name: pipeline.MetricReadFixes, Help: "Fixes that the reader has unmarshalled."},
		func() float64 { return float64(base.Counts().ReadFixes) },
	))
	if f.kind == pipeline.BaselineWhole {
		group.Go(func() error { return base.Read(ctx) })
	}
	server := grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}))
	starlingv1.RegisterIngestServiceServer(server, base)
	return server, nil
}

func adminPages(registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	return mux
}
