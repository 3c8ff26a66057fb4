package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/starling-fleet/starling/history/clickhouse"
	"github.com/starling-fleet/starling/history/lake"
	"github.com/starling-fleet/starling/history/query"
	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/clickhousetest"
	"github.com/starling-fleet/starling/internal/config"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// QueryConfig is what tracks are asked for, of whom.
type QueryConfig struct {
	// Dir keeps what was filled, so that it is filled once.
	Dir string
	// ClickHouse measures ClickHouse; else the lake.
	ClickHouse bool
	// Vehicles drive for Hours at 1 Hz, in Partitions; a batch has Batch of a
	// partition, an hour at most.
	Vehicles, Hours, Partitions int
	Batch                       time.Duration
	// Asks is how many tracks are asked for.
	Asks int
	// Cold empties the page cache before each (as root), and ClickHouse's own.
	Cold bool
}

// Query measures how long a vehicle's whole track takes over gRPC.
func Query(ctx context.Context, cfg QueryConfig, w io.Writer) error {
	s, read, err := cfg.open(ctx, w)
	if err != nil {
		return err
	}
	defer s.close()
	client, stop, err := serveHistory(s.Store)
	if err != nil {
		return err
	}
	defer stop()
	random := rand.New(rand.NewPCG(3, 3))
	var times, storeTimes []time.Duration
	var bytes int64
	fixes, before := 0, read()
	for i := range cfg.Asks + 1 {
		if cfg.Cold {
			if err := s.chill(ctx); err != nil {
				return err
			}
		}
		vehicle := vehicleName(random.IntN(cfg.Vehicles))
		began := time.Now()
		n, err := cfg.ask(ctx, client, vehicle)
		if err != nil {
			return err
		}
		if want := cfg.Hours * 3600; n != want {
			return fmt.Errorf("%s has %d fixes, not %d", vehicle, n, want)
		}
		took := time.Since(began)
		if i == 0 && !cfg.Cold { // the first warms it up
			before = read()
			continue
		}
		fixes, bytes = n, read()-before
		times = append(times, took)
	}
	asked := int64(len(times))
	for range min(cfg.Asks, 20) {
		if cfg.Cold {
			break
		}
		began := time.Now()
		for _, err := range s.Track(ctx, store.TrackQuery{Vehicle: vehicleName(random.IntN(cfg.Vehicles)), FromMS: queryStartMS, ToMS: cfg.endMS()}) {
			if err != nil {
				return err
			}
		}
		storeTimes = append(storeTimes, time.Since(began))
	}
	name := map[bool]string{true: "ClickHouse", false: "lake"}[cfg.ClickHouse]
	_, err = fmt.Fprintf(w, "%s: %d tracks of %d fixes among %d: p50 %s, p99 %s, most %s; %.1f MB read each; the store alone p50 %s\n", name, asked, fixes, cfg.Vehicles*cfg.Hours*3600,
		quantile(times, 0.5), quantile(times, 0.99), quantile(times, 1), float64(bytes)/float64(asked)/1e6, quantile(storeTimes, 0.5))
	return err
}

// serveHistory serves what a store answers over a connection of this process.
func serveHistory(s store.Store) (client starlingv1.HistoryServiceClient, stop func(), err error) {
	service, err := query.New(query.DefaultConfig(), query.Deps{Store: s, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	analyst := &auth.Caller{Issuer: "bench", Subject: "analyst", Scopes: auth.HistoryPrecise}
	server := grpc.NewServer(append(query.ServerOptions(), grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return handler(srv, &callerStream{stream, analyst})
	}))...)
	service.Register(server)
	go func() { _ = server.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		server.Stop()
		return nil, nil, err
	}
	return starlingv1.NewHistoryServiceClient(conn), func() { _ = conn.Close(); server.Stop() }, nil
}

// callerStream is a stream of a caller.
type callerStream struct {
	grpc.ServerStream
	caller *auth.Caller
}

// Context implements grpc.ServerStream.
func (s *callerStream) Context() context.Context {
	return auth.WithCaller(s.ServerStream.Context(), s.caller)
}

func quantile(times []time.Duration, p float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[min(len(times)-1, int(p*float64(len(times))))].Round(100 * time.Microsecond)
}

func vehicleName(i int) string { return fmt.Sprintf("car-%05d", i) }

// endMS is the time behind the last fix.
func (cfg *QueryConfig) endMS() int64 { return queryStartMS + int64(cfg.Hours)*3_600_000 }

// queryStartMS is a midnight, so that 24 hours are one day.
const queryStartMS = 1772409600000

// ask asks for a whole track and counts its fixes.
func (cfg *QueryConfig) ask(ctx context.Context, client starlingv1.HistoryServiceClient, vehicle string) (fixes int, err error) {
	stream, err := client.GetTrack(ctx, &starlingv1.GetTrackRequest{
		Name: "vehicles/" + vehicle, StartTime: timestamppb.New(time.UnixMilli(queryStartMS)), EndTime: timestamppb.New(time.UnixMilli(cfg.endMS())),
	})
	if err != nil {
		return 0, err
	}
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return fixes, nil
		}
		if err != nil {
			return 0, err
		}
		fixes += len(part.Fixes)
	}
}

// opened is a store that has been filled.
type opened struct {
	store.Store
	close func()
	chill func(context.Context) error
}

// open fills a store if it has not been, and returns it with a count of what it has
// read, in bytes.
func (cfg *QueryConfig) open(ctx context.Context, w io.Writer) (*opened, func() int64, error) {
	if cfg.ClickHouse {
		return cfg.openClickHouse(ctx, w)
	}
	dir := filepath.Join(cfg.Dir, "lake")
	sink, err := lake.NewSink(dir)
	if err != nil {
		return nil, nil, err
	}
	if err := cfg.fill(ctx, dir, w, sink.Write); err != nil {
		return nil, nil, err
	}
	reader, err := lake.NewReader(dir)
	if err != nil {
		return nil, nil, err
	}
	return &opened{reader, func() {}, func(context.Context) error { return dropPageCache() }}, readByProcess, nil
}

// readByProcess is what this process has read of files, from the page cache or a disk.
func readByProcess() int64 {
	text, _ := os.ReadFile("/proc/self/io") // where there is none, nothing is counted
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "rchar: "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return n
		}
	}
	return 0
}

func dropPageCache() error { return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0) }

// counted is a ClickHouse whose answers' progress is counted.
type counted struct {
	*clickhouse.Store
	bytes *atomic.Int64
}

func (c counted) within(ctx context.Context) context.Context {
	return ch.Context(ctx, ch.WithProgress(func(p *ch.Progress) { c.bytes.Add(int64(p.Bytes)) }))
}

// Track implements store.Store.
func (c counted) Track(ctx context.Context, q store.TrackQuery) iter.Seq2[row.Fix, error] {
	return c.Store.Track(c.within(ctx), q)
}

func (cfg *QueryConfig) openClickHouse(ctx context.Context, w io.Writer) (*opened, func() int64, error) {
	engine, err := clickhousetest.Install(ctx)
	if err != nil {
		return nil, nil, err
	}
	dir := filepath.Join(cfg.Dir, "clickhouse")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	server, err := clickhousetest.Launch(engine, dir)
	if err != nil {
		return nil, nil, err
	}
	c := clickhouse.DefaultConfig()
	c.Addrs, c.Username, c.Password = []string{server.Addr()}, clickhousetest.User, config.Secret(clickhousetest.Password)
	fail := func(err error) (*opened, func() int64, error) { server.Kill(); return nil, nil, err }
	if _, err := clickhouse.Migrate(ctx, c); err != nil {
		return fail(err)
	}
	sink, err := clickhouse.NewSink(c)
	if err != nil {
		return fail(err)
	}
	if err := errors.Join(cfg.fill(ctx, dir, w, sink.Write), sink.Close()); err != nil {
		return fail(err)
	}
	conn, err := ch.Open(&ch.Options{Addr: c.Addrs, Auth: ch.Auth{Database: c.Database, Username: clickhousetest.User, Password: clickhousetest.Password}})
	if err != nil {
		return fail(err)
	}
	var parts uint64
	if err := conn.QueryRow(ctx, "SELECT count() FROM system.parts WHERE database = ? AND table = 'fixes' AND active", c.Database).Scan(&parts); err != nil {
		return fail(err)
	}
	_, _ = fmt.Fprintf(w, "ClickHouse has %d parts\n", parts)
	s, err := clickhouse.NewStore(c)
	if err != nil {
		return fail(err)
	}
	var bytes atomic.Int64
	chill := func(ctx context.Context) error {
		return errors.Join(conn.Exec(ctx, "SYSTEM DROP MARK CACHE"), conn.Exec(ctx, "SYSTEM DROP UNCOMPRESSED CACHE"), dropPageCache())
	}
	return &opened{counted{s, &bytes}, func() { _ = errors.Join(s.Close(), conn.Close()); server.Kill() }, chill}, bytes.Load, nil
}

// fill writes the fixes of all vehicles, once.
func (cfg *QueryConfig) fill(ctx context.Context, dir string, w io.Writer, write func(context.Context, *row.Batch) (row.Written, error)) error {
	done := filepath.Join(dir, fmt.Sprintf("filled-%d-%d-%d-%s", cfg.Vehicles, cfg.Hours, cfg.Partitions, cfg.Batch))
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	began, rows := time.Now(), 0
	cars := make([]walk, cfg.Vehicles)
	for i := range cars {
		cars[i] = newWalk(i)
	}
	perBatch := int(cfg.Batch / time.Second)
	for second := 0; second < cfg.Hours*3600; second += perBatch {
		for p := range cfg.Partitions {
			b := &row.Batch{Partition: int32(p), Epoch: 1, First: int64(second), Last: int64(second + perBatch - 1)}
			for i := p; i < cfg.Vehicles; i += cfg.Partitions {
				for s := second; s < min(second+perBatch, cfg.Hours*3600); s++ {
					b.Rows = append(b.Rows, cars[i].fix(int32(p), s))
				}
			}
			rows += len(b.Rows)
			if _, err := write(ctx, b); err != nil {
				return err
			}
		}
		if second%3600 == 0 {
			_, _ = fmt.Fprintf(w, "filled up to hour %d: %d rows in %s\n", second/3600, rows, time.Since(began).Round(time.Second))
		}
	}
	return os.WriteFile(done, nil, 0o644)
}

// walk is a vehicle that drives at random, with a phone's noise.
type walk struct {
	random  *rand.Rand
	vehicle string
	at      row.Position
	north   float64 // speeds in 1e-7 degree a second
	east    float64
}

func newWalk(i int) walk {
	random := rand.New(rand.NewPCG(uint64(i), 1))
	return walk{random: random, vehicle: vehicleName(i), at: row.Position{LatE7: 302600000 + random.Int32N(2_000_000), LonE7: -978000000 + random.Int32N(2_000_000)}}
}

func (w *walk) fix(partition int32, second int) row.Fix {
	w.north = 0.98*w.north + 25*w.random.NormFloat64()
	w.east = 0.98*w.east + 25*w.random.NormFloat64()
	w.at.LatE7 += int32(w.north)
	w.at.LonE7 += int32(w.east)
	raw := row.Position{LatE7: w.at.LatE7 + int32(150*w.random.NormFloat64()), LonE7: w.at.LonE7 + int32(150*w.random.NormFloat64())}
	speed := int32(max(0, 1000+3*w.north))
	return row.Fix{
		Vehicle: w.vehicle, DeviceTimeMS: queryStartMS + int64(second)*1000, Epoch: 1, Partition: partition, SourceOffset: int64(second), Kind: row.Final,
		Has: row.HasEstimate | row.HasSpeed | row.HasHeading | row.HasRawSpeed | row.HasRawHeading | row.HasAccuracy, Verdict: starlingv1.Verdict_VERDICT_ACCEPTED,
		Raw: raw, Corrected: w.at, Display: w.at, RawSpeedCMPS: speed + w.random.Int32N(30), RawHeadingDDeg: w.random.Int32N(3600), SpeedCMPS: speed, HeadingDDeg: w.random.Int32N(3600), AccuracyDM: 30 + w.random.Int32N(40),
	}
}
