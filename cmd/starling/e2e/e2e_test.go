// Package e2e drives the whole of Starling through its real servers: on the local
// log in one process, and on a real Kafka with every role on its own.
package e2e

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/internal/config"
	"github.com/starling-fleet/starling/internal/fleetsim"
	"github.com/starling-fleet/starling/internal/kafkatest"
	"github.com/starling-fleet/starling/internal/replay"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// maxGap keeps recordings of scattered days younger than ingest takes.
const maxGap = time.Hour

func TestMain(m *testing.M) { kafkatest.Main(m) }

// process is an app.App that runs until the test stops it.
type process struct {
	*app.App
	stop  context.CancelFunc
	ended chan error
}

// start starts a process in development mode.
func start(t *testing.T, cfg app.Config, roles ...app.Role) *process {
	t.Helper()
	cfg.Dev = true
	return startAs(t, cfg, roles...)
}

// startAs starts a process whose configuration names whom it trusts.
func startAs(t *testing.T, cfg app.Config, roles ...app.Role) *process {
	t.Helper()
	cfg.Server.IngestListen, cfg.Server.MatcherListen = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Server.JSONListen, cfg.Server.AdminListen, cfg.Server.RidesListen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	logs := io.Discard
	if testing.Verbose() {
		logs = os.Stderr
	}
	a, err := app.New(cfg, roles, slog.New(slog.NewTextHandler(logs, nil)))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{App: a, stop: cancel, ended: make(chan error, 1)}
	go func() { p.ended <- a.Run(ctx) }()
	t.Cleanup(cancel)
	select {
	case <-a.Ready():
	case err := <-p.ended:
		t.Fatalf("the process ended before it was ready: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("the process was not ready within a minute")
	}
	return p
}

// end stops the process and waits for it.
func (p *process) end(t *testing.T) {
	t.Helper()
	p.stop()
	select {
	case err := <-p.ended:
		require.NoError(t, err)
	case <-time.After(time.Minute):
		t.Fatal("the process did not stop within a minute")
	}
}

func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// fleetOf returns every vehicle without what depends on the time of asking.
func fleetOf(t *testing.T, conn grpc.ClientConnInterface) map[string]string {
	t.Helper()
	all := map[string]string{}
	req := &starlingv1.ListVehiclesRequest{}
	for {
		page, err := starlingv1.NewFleetServiceClient(conn).ListVehicles(t.Context(), req)
		require.NoError(t, err)
		for _, v := range page.Vehicles {
			v.Age, v.Dispatchable = nil, false // both change as time passes
			text, err := protojson.Marshal(v)
			require.NoError(t, err)
			all[v.Name] = string(text)
		}
		if req.PageToken = page.NextPageToken; req.PageToken == "" {
			return all
		}
	}
}

// consumed adds up what became of the fixes of the vehicles with a prefix.
func consumed(t *testing.T, conn grpc.ClientConnInterface, prefix string) int64 {
	t.Helper()
	var n int64
	for name, text := range fleetOf(t, conn) {
		if !strings.HasPrefix(name, "vehicles/"+prefix) {
			continue
		}
		var v starlingv1.Vehicle
		require.NoError(t, protojson.Unmarshal([]byte(text), &v))
		c := v.FixCounts
		n += c.Accepted + c.Duplicate + c.Conflict + c.Late
	}
	return n
}

// drive sends ten minutes of a simulated fleet and a recording, and checks the
// account and the answers.
func drive(t *testing.T, ingest, matcher *grpc.ClientConn) {
	t.Helper()
	sim := fleetsim.DefaultOptions()
	sim.Fleet.Vehicles, sim.Fleet.ResendShare, sim.Fleet.DisorderShare = 60, 0.05, 0.05
	sim.Ingest, sim.Duration, sim.FlatOut = ingest, 10*time.Minute, true
	sent, err := fleetsim.Run(t.Context(), sim)
	require.NoError(t, err)
	require.Zero(t, sent.Client.PendingReports)
	require.Greater(t, sent.Client.AcknowledgedFixes, int64(10_000))
	require.Greater(t, sent.Resends, int64(10))

	opts := replay.DefaultOptions()
	opts.Ingest, opts.Fleet, opts.Paths = ingest, matcher, []string{recording(t)}
	account, err := replay.Run(t.Context(), opts)
	require.NoError(t, err)
	require.NoError(t, account.Check(), "%s", account)
	require.Equal(t, int64(6), account.Refused["time_repeated"]+account.Duplicates+account.Conflicts, "%s", account)
	require.Equal(t, int64(1), account.Refused["coordinate_out_of_range"], "%s", account)

	// Everything of the simulation is consumed too: what was acknowledged is
	// what the fleet counts.
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		require.Equal(c, sent.Fixes-sent.Client.RefusedFixes, consumed(t, matcher, sim.Fleet.VehiclePrefix))
	}, 2*time.Minute, 50*time.Millisecond)

	verify := replay.DefaultVerifyOptions()
	verify.Fleet, verify.Places = matcher, 200
	result, err := replay.Verify(t.Context(), verify)
	require.NoError(t, err)
	require.Equal(t, 64, result.Vehicles)
}

// recording writes 4 vehicles' drives with five exact repetitions, one
// conflict and one impossible coordinate.
func recording(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "drive.csv")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	row := func(v, i int, east float64) {
		_, err := fmt.Fprintf(f, "bus_%d,%d,%.6f,%.6f,5,10,90\n", v, 1_700_000_000_000+int64(i)*1000, 30.0+float64(v)*0.01, -97+east*0.0001)
		require.NoError(t, err)
	}
	_, err = fmt.Fprintln(f, "vehicle_id,unix_ms,lat,lon,accuracy_m,speed_mps,heading_deg")
	require.NoError(t, err)
	for i := range 500 {
		for v := range 4 {
			row(v, i, float64(i))
		}
		if i%100 == 7 {
			row(1, i, float64(i))
		}
	}
	row(2, 498, 400)
	_, err = fmt.Fprintln(f, "bus_3,1700000500000,91,0,,,")
	require.NoError(t, err)
	return path
}

func TestLocalLog(t *testing.T) {
	cfg := app.DefaultConfig()
	cfg.Partitions = 6
	cfg.Local.Directory = t.TempDir()
	cfg.Rides.NameKeysFile = filepath.Join(t.TempDir(), "names.key")
	require.NoError(t, os.WriteFile(cfg.Rides.NameKeysFile, []byte(strings.Repeat("5a", 32)+"\n"), 0o600))
	p := start(t, cfg, app.AllRoles()...)
	ingest, matcher := connect(t, p.Addr(app.Ingest)), dial(t, p.Addr(app.Matcher))
	drive(t, ingest, matcher)
	before := fleetOf(t, matcher)
	p.end(t)

	again := start(t, cfg, app.AllRoles()...)
	require.Equal(t, before, fleetOf(t, dial(t, again.Addr(app.Matcher))), "a restart changes nothing")
	ride(t, connect(t, again.Addr(app.Ingest)), nil, dial(t, again.Addr(app.Matcher)))
	again.end(t)
}

func TestKafkaEveryRoleOnItsOwn(t *testing.T) {
	cfg := app.DefaultConfig()
	cfg.Partitions = 6
	cfg.Kafka.Brokers = kafkatest.Shared(t).Brokers()
	cfg.Kafka.TopicPrefix = "e2e-"
	matching := start(t, cfg, app.Matcher)
	tracking := start(t, cfg, app.Tracker)
	ingesting := start(t, cfg, app.Ingest)
	ingest, matcher := connect(t, ingesting.Addr(app.Ingest)), dial(t, matching.Addr(app.Matcher))
	drive(t, ingest, matcher)
	before := fleetOf(t, matcher)

	tracking.end(t)
	matching.end(t)
	tracking = start(t, cfg, app.Tracker)
	matching = start(t, cfg, app.Matcher)
	require.Equal(t, before, fleetOf(t, dial(t, matching.Addr(app.Matcher))), "a restart changes nothing")
	cfg.Rides.NameKeys = config.Secret(strings.Repeat("5a", 32))
	rideOverRedis(t, cfg, ingest)
	ingesting.end(t)
	tracking.end(t)
	matching.end(t)
}

func connect(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := client.Dial(addr, client.DialOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
