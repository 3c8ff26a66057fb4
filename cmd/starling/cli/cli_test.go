package cli

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write generated files anew")

type outcome struct {
	code     int
	out, err string
}

func runCLI(t *testing.T, ctx context.Context, in string, args ...string) outcome {
	t.Helper()
	var out, errs bytes.Buffer
	code := Main(ctx, args, IO{In: strings.NewReader(in), Out: &out, Err: &errs, Environ: []string{"STARLING_LOG_LEVEL=warn"}})
	return outcome{code, out.String(), errs.String()}
}

func TestDocsConfigurationIsCurrent(t *testing.T) {
	var want bytes.Buffer
	require.NoError(t, writeReference(&want))
	path := filepath.Join("..", "..", "..", "docs", "configuration.md")
	if *update {
		require.NoError(t, os.WriteFile(path, want.Bytes(), 0o600))
	}
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want.String(), string(got), "docs/configuration.md is not current: run `make docs`")
}

func TestEveryCommandHasHelpAndAnExample(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		require.NotEmpty(t, cmd.Short, cmd.CommandPath())
		switch cmd.Name() {
		case "starling", "version", "config", "topics", "list", "reference":
		default:
			require.Contains(t, cmd.Example, cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			if sub.Name() == "help" || sub.Name() == "completion" {
				continue
			}
			visit(sub)
		}
	}
	for _, sub := range newRoot(IO{}).Commands() {
		visit(sub)
	}
}

func TestFilterWritesARowForEachRow(t *testing.T) {
	in := "vehicle_id,unix_ms,lat,lon,accuracy_m,speed_mps,heading_deg\n" +
		"a,1000,48.0,16.0,5,,\nb,1000,1.0,2.0,,,\na,2000,48.0001,16.0,5,10,0\n"
	got := runCLI(t, t.Context(), in, "filter")
	require.Equal(t, exitOK, got.code, got.err)
	lines := strings.Split(strings.TrimSpace(got.out), "\n")
	require.Len(t, lines, 4)
	for _, column := range strings.Split("live_unix_ms,live_lat,live_lon,live_speed_mps,live_heading_deg,live_var_east_m2,live_cov_east_north_m2,live_var_north_m2,verdict", ",") {
		require.Contains(t, lines[0], column)
	}
	bad := runCLI(t, t.Context(), in+"a,3000,91,16.0,,,\n", "filter")
	require.Equal(t, exitNo, bad.code)
	require.Contains(t, bad.err, "lat")
	require.Contains(t, bad.out, "refused")
}

func TestDemoShowsFiguresAndStopsCleanly(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	got := runCLI(t, ctx, "", "demo", "--vehicles", "50", "--period", "500ms")
	require.Equal(t, exitOK, got.code, got.err)
	require.Contains(t, got.out, "Nearest free vehicles")
	require.Contains(t, got.out, "Three things to try next")

	asJSON := runCLI(t, t.Context(), "", "demo", "--vehicles", "50", "--period", "500ms", "--duration", "5s", "--json")
	require.Equal(t, exitOK, asJSON.code, asJSON.err)
	var report demoReport
	readJSON(t, asJSON.out, &report)
	require.Greater(t, report.Simulation.Client.AcknowledgedFixes, int64(100))
	require.Zero(t, report.Simulation.Client.PendingReports)
	require.Positive(t, report.Searchable.Count)
	require.Positive(t, report.VehiclesAtCentre)
}
