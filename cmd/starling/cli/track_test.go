package cli

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/cmd/starling/app"
)

// A fix goes through gRPC, the log, the tracker and history into a Parquet file,
// and is printed from there in every form.
func TestTrackOfAFixThroughEverything(t *testing.T) {
	cfg := app.DefaultConfig()
	cfg.Dev, cfg.Partitions, cfg.Local.Directory = true, 2, t.TempDir()
	cfg.Server.IngestListen, cfg.Server.MatcherListen, cfg.Server.JSONListen, cfg.Server.AdminListen, cfg.Server.HistoryListen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "", "127.0.0.1:0"
	cfg.History.BatchInterval = 10 * time.Millisecond
	cfg.History.LakeDir = filepath.Join(t.TempDir(), "lake")
	a, err := app.New(cfg, app.AllRoles(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	select {
	case <-a.Ready():
	case <-time.After(time.Minute):
		t.Fatal("not ready in time")
	}
	sent := runCLI(t, t.Context(), "", "send", "car~7", "--at", "48.2085,16.373", "--ingest", a.Addr(app.Ingest))
	require.Equal(t, exitOK, sent.code, sent.err)
	server := "--history=" + a.Addr(app.History)
	// The history role answers as soon as it has written the fix, over gRPC and JSON.
	require.Eventually(t, func() bool {
		got := runCLI(t, t.Context(), "", "track", "car~7", "--format=csv", server)
		require.Equal(t, exitOK, got.code, got.err)
		return strings.Contains(got.out, ",48.2085000,16.3730000,")
	}, time.Minute, 20*time.Millisecond)
	visits := runCLI(t, t.Context(), "", "visits", "--json", server, "--vertex=48.2,16.3", "--vertex=48.2,16.4", "--vertex=48.3,16.3")
	require.Equal(t, exitOK, visits.code, visits.err)
	require.Contains(t, visits.out, `"vehicle":"car~7"`)
	picture := filepath.Join(t.TempDir(), "x.png")
	drawn := runCLI(t, t.Context(), "", "heatmap", "--out="+picture, server, "--period=minute")
	require.Equal(t, exitOK, drawn.code, drawn.err)
	require.Contains(t, drawn.out, "1 cells, 1 (dark) to 1 (bright) fixes")
	hour := time.Now().UTC().Truncate(time.Hour)
	answer, err := http.Get("http://" + a.JSONAddr() + "/v1/vehicles/car~7:track?layers=TRACK_LAYER_RAW&start_time=" + hour.Add(-time.Hour).Format(time.RFC3339) + "&end_time=" + hour.Add(2*time.Hour).Format(time.RFC3339))
	require.NoError(t, err)
	var line struct {
		Result struct {
			Complete bool
			Fixes    []struct {
				Raw struct{ Place struct{ Latitude float64 } }
			}
		}
	}
	require.NoError(t, json.NewDecoder(answer.Body).Decode(&line))
	require.NoError(t, answer.Body.Close())
	require.True(t, line.Result.Complete)
	require.Len(t, line.Result.Fixes, 1)
	require.InDelta(t, 48.2085, line.Result.Fixes[0].Raw.Place.Latitude, 1e-6)
	run := func(args ...string) outcome {
		return runCLI(t, t.Context(), "", append([]string{"track", "car~7", "--lake", cfg.History.LakeDir}, args...)...)
	}
	require.Eventually(t, func() bool { return strings.Contains(run().out, "48.2085000") }, time.Minute, 20*time.Millisecond)
	cancel()
	require.NoError(t, <-ended)

	table := run()
	require.Equal(t, exitOK, table.code, table.err)
	require.Contains(t, table.out, "48.2085000")
	lines := strings.Split(strings.TrimSpace(run("--format=csv").out), "\n")
	require.Len(t, lines, 2)
	require.Contains(t, lines[1], ",48.2085000,16.3730000,")
	var collection struct {
		Features []struct {
			Geometry struct{ Coordinates []float64 }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(run("--format=geojson").out), &collection))
	require.Len(t, collection.Features, 1)
	require.InDeltaSlice(t, []float64{16.373, 48.2085}, collection.Features[0].Geometry.Coordinates, 1e-6)
	var gpx struct {
		Points []struct {
			Lat float64 `xml:"lat,attr"`
		} `xml:"trk>trkseg>trkpt"`
	}
	require.NoError(t, xml.Unmarshal([]byte(run("--format=gpx").out), &gpx))
	require.Len(t, gpx.Points, 1)
	require.InDelta(t, 48.2085, gpx.Points[0].Lat, 1e-6)
	require.Contains(t, run("--format=svg").out, "<circle")
	lakeVisits := runCLI(t, t.Context(), "", "visits", "--lake", cfg.History.LakeDir, "--vertex=48.2,16.3", "--vertex=48.2,16.4", "--vertex=48.3,16.3")
	require.Contains(t, lakeVisits.out, "car~7")
	svg := filepath.Join(t.TempDir(), "x.svg")
	drawn = runCLI(t, t.Context(), "", "heatmap", "--out", svg, "--lake", cfg.History.LakeDir)
	require.Equal(t, exitOK, drawn.code, drawn.err)
	empty := runCLI(t, t.Context(), "", "heatmap", "--out", svg, "--lake", cfg.History.LakeDir, "--to=2001-01-01T00:00:00Z")
	require.Equal(t, exitNo, empty.code, empty.err)
	require.NotContains(t, run("--to=2001-01-01T00:00:00Z").out, "48.2085")

	deviceTime := strings.Split(lines[1], ",")[0]
	explain := func(args ...string) outcome {
		return runCLI(t, t.Context(), "", append([]string{"explain", "car~7", deviceTime, "--lake", cfg.History.LakeDir}, args...)...)
	}
	told := explain()
	require.Equal(t, exitOK, told.code, told.err)
	require.Contains(t, told.out, "car~7 at "+deviceTime+": open")
	require.Regexp(t, `reported +48\.2085000 +16\.3730000`, told.out)
	require.Regexp(t, `corrected +48\.2085000 +16\.3730000`, told.out)
	require.Regexp(t, `it came once:\n  epoch \d+, offset \d+, session \d+, sequence 1: accepted\n`, told.out)
	require.Contains(t, explain("--json").out, `"outcome":"accepted"`)
	nothing := runCLI(t, t.Context(), "", "explain", "car~7", "2001-01-01T00:00:00Z", "--lake", cfg.History.LakeDir)
	require.NotEqual(t, exitOK, nothing.code)
	require.Contains(t, nothing.err, "history has no fix of car~7")

	release := func(args ...string) outcome {
		return runCLI(t, t.Context(), "", append([]string{"history", "release", "--partitions", "2", "--local-directory", cfg.Local.Directory, "--sink"}, args...)...)
	}
	require.Contains(t, release("lake", "--history-lake-dir", cfg.History.LakeDir).err, "turn it off first")
	require.Contains(t, release("s3").err, "must be lake or clickhouse")
	require.Equal(t, exitNo, release("clickhouse").code)
	require.Contains(t, release("lake").out, "(2 partitions)")
	require.Equal(t, exitNo, release("lake").code, "it is released already")

	reprocess := func(args ...string) outcome {
		return runCLI(t, t.Context(), "", append([]string{"reprocess", "--partitions", "2", "--local-directory", cfg.Local.Directory, "--from", "2026-01-01T00:00:00Z", "--to", "2126-01-01T00:00:00Z", "--warm-up", "0s"}, args...)...)
	}
	other := filepath.Join(t.TempDir(), "other")
	again := reprocess("--out", other)
	require.Equal(t, exitOK, again.code, again.err)
	require.Contains(t, again.out, "1 fixes in the range; 1 rows compared, 1 the same")
	require.Contains(t, runCLI(t, t.Context(), "", "track", "car~7", "--lake", other).out, "48.2085000")
	require.Contains(t, reprocess("--out", other).err, "is not empty")
	require.Contains(t, reprocess().err, "must be named")
	require.Contains(t, reprocess("--out", other, "--from", "yesterday").err, "must be times")
	require.Contains(t, reprocess("--out", other, "--step-version", "99").err, "this binary carries")

	requireErased(t, cfg, "car~7")
	require.NotEqual(t, exitOK, explain().code)
	require.NotContains(t, run("--format=csv").out, "48.2085000")
	require.Contains(t, reprocess("--out", filepath.Join(t.TempDir(), "erased")).out, "0 fixes in the range; 0 rows compared")
}

// requireErased has a vehicle erased, and waits until the lake has done it and the
// matcher does not know the vehicle any more.
func requireErased(t *testing.T, cfg app.Config, vehicle string) {
	t.Helper()
	erased := runCLI(t, t.Context(), "", "history", "erase", vehicle, "--until", time.Now().UTC().Format(time.RFC3339Nano), "--local-directory", cfg.Local.Directory, "--partitions", "2")
	require.Equal(t, exitOK, erased.code, erased.err)
	require.Regexp(t, "^the erasure of "+vehicle+" before .* is in the log: locations/[01]/[0-9]+\n$", erased.out)
	a, err := app.New(cfg, app.AllRoles(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	defer func() {
		cancel()
		require.NoError(t, <-ended)
	}()
	select {
	case <-a.Ready():
	case <-time.After(time.Minute):
		t.Fatal("not ready in time")
	}
	require.Eventually(t, func() bool {
		done, err := filepath.Glob(filepath.Join(cfg.History.LakeDir, "_erasures", "done-*.json"))
		return err == nil && len(done) == 1 && runCLI(t, t.Context(), "", "get", vehicle, "--matcher", a.Addr(app.Matcher)).code != exitOK
	}, time.Minute, 20*time.Millisecond)
}

func TestTrackRefusals(t *testing.T) {
	for line, want := range map[string]string{
		"track car --history 127.0.0.1:1":             "no connection",
		"track car --min-interval 1s --tolerance-m 2": "give one of them",
		"track car --min-interval 1s --lake /":        "leave them out with --lake",
		"heatmap --out x.gif":                         "must end in .png or .svg",
		"heatmap --out x.png --value age":             "must be fixes, vehicles or speed",
		"heatmap --out x.png --period day":            "must be hour or minute",
		"heatmap --out x.png --width 1":               "must be between 100 and 10000",
		"heatmap --out x.png --cell 891e15b7187ffff":  "a resolution of at most 7",
		"visits":                           "name one area",
		"visits --cell nope":               "must be an H3 cell",
		"visits --vertex 1,2 --vertex 1,3": "a polygon has at least 3",
		"visits --vertex 91,2 --vertex 1,3 --vertex 4,4":                           "must be a latitude",
		"track car --lake x --format kml":                                          "must be table, csv, geojson, gpx or svg",
		"track car --lake x --from yesterday":                                      "--from is \"yesterday\": must be a time",
		"track car --lake x --from 2026-03-01T00:00:00Z --to 2026-03-01T00:00:00Z": "must be before --to",
		"history erase car --until yesterday":                                      "--until is \"yesterday\": must be a time",
		"history erase a/b --until 2026-03-01T00:00:00Z":                           "is no vehicle",
		"history erase car --until 9999-03-01T00:00:00Z":                           "not in the future",
		"explain car yesterday --lake x":                                           "TIME is \"yesterday\": must be a time",
		"explain a/b 2026-03-01T00:00:00Z --lake x":                                "VEHICLE is \"a/b\": must be",
		"explain car 2026-03-01T00:00:00Z":                                         "--lake and history.clickhouse.addrs are empty",
		"track car --lake /nowhere-at-all":                                         "is not a history lake",
		"history --dev --kafka-brokers 127.0.0.1:1":                                "history.lake_dir and history.clickhouse.addrs are empty",
	} {
		got := runCLI(t, t.Context(), "", strings.Fields(line)...)
		require.NotEqual(t, exitOK, got.code, line)
		require.Contains(t, got.err, want, line)
		require.NotRegexp(t, foreign, got.err, line)
	}
}
