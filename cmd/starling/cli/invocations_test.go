package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// foreign are words of libraries that a user is never to read.
var foreign = regexp.MustCompile(`strconv|mapstructure|decoding failed|rpc error|Error while dialing|field_violations|context deadline exceeded|time: (missing|unknown|invalid)|no such file or directory \(`)

// upForTests is a whole Starling in this process, as `starling up` runs it.
func upForTests(t *testing.T) *app.App {
	t.Helper()
	cfg := app.DefaultConfig()
	cfg.Dev = true
	cfg.Partitions = 2
	cfg.Local.Directory = t.TempDir()
	cfg.Server.IngestListen, cfg.Server.MatcherListen, cfg.Server.JSONListen, cfg.Server.AdminListen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	a, err := app.New(cfg, app.AllRoles(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-ended) })
	select {
	case <-a.Ready():
	case <-time.After(time.Minute):
		t.Fatal("not ready in time")
	}
	return a
}

// What every kind of command line leads to: its exit code, what it prints, and no
// word of a library.
func TestInvocations(t *testing.T) {
	up := upForTests(t)
	ingest, matcher := "--ingest="+up.Addr(app.Ingest), "--matcher="+up.Addr(app.Matcher)
	admin := "--admin=" + up.AdminAddr()
	const nobody = "--matcher=127.0.0.1:1"
	used := t.TempDir() // a log with two partitions
	made := runCLI(t, stopped(t), "", "up", "--dev", "--partitions=2", "--local-directory="+used, "--server-ingest-listen=127.0.0.1:0", "--server-matcher-listen=127.0.0.1:0", "--server-json-listen=", "--server-admin-listen=")
	require.Equal(t, exitOK, made.code, made.err)

	for _, c := range []struct {
		line  string
		code  int
		words string // on standard error, or on standard output if the code is 0
	}{
		{"version", exitOK, ""},
		{"help", exitOK, "Exit codes"},
		{"help nearest", exitOK, "starling nearest"},
		{"help topics create", exitOK, "starling topics create"},
		{"help nope", exitUsage, `no command "nope"`},
		{"help topics nope", exitUsage, `no command "topics nope"`},
		{"nope", exitUsage, "nope"},
		{"topics nope", exitUsage, "nope"},
		{"up --no-such-flag", exitUsage, "no-such-flag"},
		{"up surplus", exitUsage, "surplus"},
		{"up --partitions x", exitUsage, `--partitions is "x": must be a whole number`},
		{"up --partitions 0 --log-format xml --server-ingest-listen 0.0.0.0:1", exitUsage, "partitions is 0"},
		{"up --partitions 0 --log-format xml --server-ingest-listen 0.0.0.0:1", exitUsage, `format is "xml"`},
		{"up --dev --server-ingest-listen 0.0.0.0:1", exitUsage, "with --dev it must be on loopback"},
		{"up", exitUsage, "set auth.keys_file or auth.jwks_url"},
		{"up", exitUsage, "use --dev"},
		{"matcher --kafka-brokers 127.0.0.1:1", exitUsage, "use --dev"},
		{"tracker --kafka-brokers 127.0.0.1:1", exitUsage, "use --dev"},
		{"up --auth-keys-file /nonexistent", exitUsage, "issuer"},
		{"up --auth-keys-file /nonexistent --auth-issuer me", exitFailed, "/nonexistent"},
		{"up --auth-dev-secret-file /nonexistent --auth-issuer me", exitUsage, "must be left out without dev"},
		{"up --server-drain-timeout 5", exitUsage, `--server-drain-timeout is "5": must be a duration`},
		{"up --dev --partitions 3 --local-directory " + used, exitUsage, "partitions is 3: must be 2"},
		{"dlq list --partitions 3 --local-directory " + used, exitUsage, "partitions is 3: must be 2"},
		{"dlq list --partitions 2 --partition 2 --local-directory " + used, exitUsage, "partitions 0 to 1"},
		{"dlq list --partitions 2 --local-directory " + used, exitOK, "0 dead letters"},
		{"dlq show nonsense", exitUsage, "TOPIC/PARTITION/OFFSET"},
		{"dlq show locations/0/7 --partitions 2 --local-directory " + used, exitNo, "no dead letter"},
		{"dlq list --local-directory /nonexistent", exitUsage, "no local log in /nonexistent"},
		{"log check --data /nonexistent", exitUsage, "/nonexistent"},
		{"log check --data " + used, exitOK, "everything that was acknowledged is there"},
		{"tracker", exitUsage, "kafka.brokers is empty"},
		{"topics create", exitUsage, "kafka.brokers is empty"},
		{"config check", exitOK, "can be used"},
		{"config check --partitions 0", exitUsage, "partitions is 0"},
		{"config check --config /nonexistent.yaml", exitUsage, "/nonexistent.yaml"},
		{"config print", exitOK, "partitions: 24"},
		{"rides release nobody --partitions 2 --local-directory " + used, exitOK, "the release of nobody is in the log"},
		{"rides release rides/nope --partitions 2 --local-directory " + used, exitNo, "no ride nope"},
		{"rides abandon 1 --partitions 2 --local-directory " + used, exitUsage, "--yes"},
		{"rides abandon 2 --yes --partitions 2 --local-directory " + used, exitUsage, "between 0 and 1"},
		{"rides abandon 1 --yes --partitions 2 --local-directory " + used, exitOK, "stated to 2 partitions"},
		{"ride new --rider ann --pickup 1,2 --rides=" + up.Addr(app.Matcher), exitOK, "rides/"},
		{"ride new --rider ann --rides=" + up.Addr(app.Matcher), exitUsage, "--pickup is missing"},
		{"ride get rides/nope --rides=" + up.Addr(app.Matcher), exitUsage, "a name that NewRide made"},
		{"ride act x fly", exitUsage, "accept, decline, arrive, board or complete"},
		{"ride list --rides=" + up.Addr(app.Matcher), exitOK, ""},
		{"ride list --rides=127.0.0.1:1", exitFailed, "no connection"},
		{"nearest", exitUsage, "--at"},
		{"nearest --at here", exitUsage, "LATITUDE,LONGITUDE"},
		{"nearest --at 1,2 --available maybe", exitUsage, "maybe"},
		{"nearest --at 91,0 " + matcher, exitUsage, "place.latitude: is 91: must be between -90 and 90"},
		{"nearest --at nan,0 " + matcher, exitUsage, "place.latitude"},
		{"nearest --at 1,2 --max-results 9999 " + matcher, exitUsage, "max_results"},
		{"nearest --at 1,2 --max-results x " + matcher, exitUsage, `--max-results is "x": must be a whole number`},
		{"nearest --at 1,2 --timeout 0s " + matcher, exitUsage, "--timeout is 0s: must be positive"},
		{"nearest --at 1,2 " + matcher, exitOK, "No vehicle"},
		{"nearest --at 1,2 --timeout 20s " + nobody, exitFailed, "no connection: connection refused"},
		{"get " + matcher, exitUsage, "1 arg"},
		{"get nosuch " + matcher, exitNo, "nosuch"},
		{"get .. " + matcher, exitUsage, "neither . nor .."},
		{"get a " + nobody, exitFailed, "no connection: connection refused"},
		{"list " + matcher, exitOK, "VEHICLE"},
		{"list --max-results -1 " + matcher, exitUsage, "--max-results"},
		{"list " + nobody, exitFailed, "no connection: connection refused"},
		{"area " + matcher, exitUsage, "name one area"},
		{"area --southwest 1,2 " + matcher, exitUsage, "--northeast is missing"},
		{"area --southwest 1,2 --northeast 0,3 " + matcher, exitUsage, "area.viewport"},
		{"area --vertex 1,2 --vertex x " + matcher, exitUsage, `--vertex is "x"`},
		{"area --vertex 1,2 " + matcher, exitUsage, "area.polygon.vertices"},
		{"area --cell zz " + matcher, exitUsage, "area.cells"},
		{"area --southwest 1,2 --northeast 2,3 " + matcher, exitOK, "0 of 0 vehicles"},
		{"send a " + ingest, exitUsage, "--at is missing"},
		{"send a/b --at 1,2 " + ingest, exitUsage, "vehicle_id"},
		{"send a --at 1,2 --available reserved " + ingest, exitUsage, "availability"},
		{"send a --at 91,2 " + ingest, exitNo, "latitude is 91"},
		{"send a --at 1,2 --ingest 127.0.0.1:1", exitFailed, "no connection: connection refused"},
		{"status " + admin, exitOK, "ingest+tracker+matcher"},
		{"status --admin 127.0.0.1:1", exitFailed, "connection refused"},
		{"status --admin " + up.JSONAddr(), exitFailed, "404"},
		{"conformance", exitUsage, "the client's command is missing"},
		{"conformance --scenario calmer -- client", exitUsage, "must be one of calm, late"},
		{"conformance --serve 127.0.0.1:0", exitUsage, "plays one scenario"},
		{"conformance --ack-timeout 0s -- client", exitUsage, "--ack-timeout is 0s"},
		{"conformance -- /nonexistent/client", exitFailed, "start the client"},
		{"conformance --list", exitOK, "storm"},
		{"conformance --scenario calm,denied --json -- cat", exitNo, "in 2 of 2 scenarios"},
		{"supply --resolution 99 " + matcher, exitUsage, "selection.resolution"},
		{"supply --in zz " + matcher, exitUsage, "selection.within_h3_cells"},
		{"supply " + matcher, exitOK, "No vehicle matches"},
		{"supply " + nobody, exitFailed, "no connection: connection refused"},
		{"devices --max-results -1 " + matcher, exitUsage, "--max-results"},
		{"devices " + matcher, exitOK, "0 of 0 vehicles"},
		{"devices " + nobody, exitFailed, "no connection: connection refused"},
		{"watch", exitUsage, "1 arg"},
		{"watch nosuch --count 1 --timeout 100ms " + matcher, exitNo, "nosuch did not become known within 100ms"},
		{"watch a --playback-delay 1ms " + matcher, exitUsage, "playback_delay"},
		{"watch .. " + matcher, exitUsage, "neither . nor .."},
		{"watch a --count -1 " + matcher, exitUsage, "--count"},
		{"watch a " + nobody, exitFailed, "no connection: connection refused"},
		{"replay --speedup 0.5 x.csv", exitUsage, "speedup"},
		{"replay no-such-file.csv", exitUsage, "no-such-file.csv"},
		{"simulate --vehicles 0", exitUsage, "vehicles"},
		{"simulate --vehicles x", exitUsage, `--vehicles is "x": must be a whole number`},
		{"simulate --vehicles 2 --duration 10s --flat-out --quiet " + ingest, exitOK, "fixes"},
		{"filter --window -1s", exitUsage, "window"},
		{"filter surplus", exitUsage, "surplus"},
	} {
		t.Run(c.line, func(t *testing.T) {
			got := runCLI(t, t.Context(), "", strings.Fields(c.line)...)
			require.Equal(t, c.code, got.code, "%s%s", got.out, got.err)
			if c.code == exitOK {
				require.Contains(t, got.out, c.words)
			} else {
				require.Contains(t, got.err, c.words)
				require.True(t, strings.HasPrefix(lastLine(got.err), "starling: ") || strings.Contains(got.err, "starling: "), got.err)
			}
			require.NotRegexp(t, foreign, got.err)
		})
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// stopped is a context that is done: a process with it makes its log and stops.
func stopped(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestSettingsOfTheEnvironmentAreChecked(t *testing.T) {
	for variable, words := range map[string]string{
		"STARLING_PARTITIONS=1e3":    `STARLING_PARTITIONS is "1e3": must be a whole number`,
		"STARLING_TRACKER_WINDOW=5":  "STARLING_TRACKER_WINDOW is 5, which has no unit",
		"STARLING_LOCAL_SYNC=maybe":  `STARLING_LOCAL_SYNC is "maybe": must be true or false`,
		"STARLING_PARTITONS=7":       "unknown setting STARLING_PARTITONS",
		"STARLING_LOG_LEVEL=verbose": "log",
	} {
		var out, errs bytes.Buffer
		code := Main(t.Context(), []string{"config", "check"}, IO{In: strings.NewReader(""), Out: &out, Err: &errs, Environ: []string{variable}})
		require.Equal(t, exitUsage, code, variable)
		require.Contains(t, errs.String(), words)
		require.NotRegexp(t, foreign, errs.String())
	}
}

// Everything that --json prints is in one form: objects, one a line, with names in
// lowerCamelCase.
func TestJSONIsOneDialect(t *testing.T) {
	up := upForTests(t)
	ingest, matcher := "--ingest="+up.Addr(app.Ingest), "--matcher="+up.Addr(app.Matcher)
	conn, err := dial(up.Addr(app.Matcher))
	require.NoError(t, err)
	defer conn.Close()
	for _, line := range []string{
		"version", "config print", "topics list",
		"simulate --vehicles 3 --period 1s --duration 20s --flat-out --quiet --offline-share 0 --tunnels 0 " + ingest,
		"nearest --all --at 48.2,16.37 " + matcher, "supply " + matcher, "devices " + matcher,
		"watch sim-0001 --count 1 " + matcher, "get sim-0001 " + matcher, "list " + matcher,
		"area --southwest 47,15 --northeast 49,17 " + matcher, "send by-hand --at 48.2,16.37 " + ingest, "status --admin " + up.AdminAddr(),
	} {
		t.Run(line, func(t *testing.T) {
			if strings.HasPrefix(line, "nearest") {
				waitForVehicles(t, conn, 3)
			}
			got := runCLI(t, t.Context(), "", append(strings.Fields(line), "--json")...)
			require.Equal(t, exitOK, got.code, got.err)
			lines := bufio.NewScanner(strings.NewReader(got.out))
			lines.Buffer(nil, 1<<20)
			n := 0
			for ; lines.Scan(); n++ {
				var object map[string]any
				require.NoError(t, json.Unmarshal(lines.Bytes(), &object), "%s", lines.Text())
				if line != "config print" { // whose names are those of settings
					requireCamel(t, object)
				}
			}
			require.Positive(t, n)
		})
	}
}

func requireCamel(t *testing.T, v any) {
	t.Helper()
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			require.Regexp(t, `^[a-z][a-zA-Z0-9]*$`, name)
			requireCamel(t, value)
		}
	case []any:
		for _, value := range v {
			requireCamel(t, value)
		}
	}
}

func waitForVehicles(t *testing.T, conn grpc.ClientConnInterface, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		list, err := starlingv1.NewFleetServiceClient(conn).ListVehicles(t.Context(), &starlingv1.ListVehiclesRequest{})
		return err == nil && len(list.Vehicles) >= n
	}, time.Minute, 10*time.Millisecond)
}

func TestDialect(t *testing.T) {
	type inner struct {
		Deep int32 `json:"deep_value"`
	}
	type outer struct {
		inner
		Wait   time.Duration    `json:"wait_ns"`
		At     time.Time        `json:"at_time"`
		Big    int64            `json:"big"`
		Small  int32            `json:"small"`
		Empty  []string         `json:"empty"`
		Absent *int64           `json:"absent,omitempty"`
		Counts map[string]int64 `json:"counts"`
		Raw    json.RawMessage  `json:"raw"`
		Odd    float64          `json:"odd"`
		Plain  string
		hidden int
	}
	nan := 0.0
	var out bytes.Buffer
	require.NoError(t, dialect.Print(&out, outer{
		inner: inner{1}, Wait: 1500 * time.Millisecond, At: time.Unix(1, 5e8), Big: 1 << 60, Counts: map[string]int64{"b_c": 2, "a": 1},
		Raw: json.RawMessage(`{"window_ms": 3}`), Odd: nan / nan, Plain: "<p>", hidden: 1,
	}))
	require.Equal(t, `{"deepValue":1,"wait":"1.500s","atTime":"1970-01-01T00:00:01.5Z","big":"1152921504606846976","small":0,"empty":[],"counts":{"a":"1","b_c":"2"},"raw":{"windowMs":3},"odd":"NaN","plain":"\u003cp\u003e"}`+"\n", out.String())
	require.Error(t, dialect.Print(&broken{}, 1))
}

type broken struct{}

func (*broken) Write([]byte) (int, error) { return 0, net.ErrClosed }

// What send sends, get, list and area show; status counts it.
func TestOneVehicleByHand(t *testing.T) {
	up := upForTests(t)
	ingest, matcher := "--ingest="+up.Addr(app.Ingest), "--matcher="+up.Addr(app.Matcher)
	run := func(line string) string {
		got := runCLI(t, t.Context(), "", strings.Fields(line)...)
		require.Equal(t, exitOK, got.code, "%s: %s", line, got.err)
		return got.out
	}
	require.Contains(t, run("send by-hand --at 48.2,16.37 --available free --speed-mps 10 --heading-deg 90 --accuracy-m 5 "+ingest), "by-hand is durable")
	conn, err := dial(up.Addr(app.Matcher))
	require.NoError(t, err)
	defer conn.Close()
	waitForVehicles(t, conn, 1)
	// A first fix is published where it was taken, not shifted along its velocity.
	v, err := starlingv1.NewFleetServiceClient(conn).GetVehicle(t.Context(), &starlingv1.GetVehicleRequest{Name: "vehicles/by-hand"})
	require.NoError(t, err)
	require.InDelta(t, 48.2, v.Position.Latitude, 1e-7)
	require.InDelta(t, 16.37, v.Position.Longitude, 1e-7)

	shown := run("get by-hand " + matcher)
	require.Regexp(t, `vehicle +by-hand\n`, shown)
	require.Regexp(t, `position +48.20000,16.37000\n`, shown)
	require.Regexp(t, `fixes +1 accepted`, shown)
	require.Equal(t, shown[:20], run("get vehicles/by-hand " + matcher)[:20])
	require.Contains(t, run("list "+matcher), "by-hand")
	require.Contains(t, run("area --southwest 48.1,16.2 --northeast 48.3,16.5 "+matcher), "1 of 1 vehicles")
	require.Contains(t, run("area --vertex 48.1,16.2 --vertex 48.1,16.5 --vertex 48.3,16.4 "+matcher), "by-hand")
	require.Contains(t, run("area --southwest 10,10 --northeast 11,11 "+matcher), "0 of 0 vehicles")

	var s processStatus
	readJSON(t, run("status --json --admin "+up.AdminAddr()), &s)
	require.True(t, s.Ready)
	require.Equal(t, app.AllRoles(), s.Roles)
	require.Equal(t, int32(2), *s.Partitions)
	require.Equal(t, int32(2), *s.OwnedPartitions)
	require.Equal(t, int64(1), *s.Vehicles)
	require.NotNil(t, s.Epoch)
	require.NotNil(t, s.LagRecords)
}
