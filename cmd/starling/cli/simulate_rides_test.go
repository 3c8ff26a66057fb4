package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSimulateRides(t *testing.T) {
	dir := t.TempDir()
	demand, picture := filepath.Join(dir, "demand.csv"), filepath.Join(dir, "rides.svg")
	const trips = "pickup_unix_ms,pickup_lat,pickup_lon,dropoff_lat,dropoff_lon\n1000,48,11,48.01,11\n2000,48,11.001,48,11.02\n61000,48.01,11,48,11\n"
	require.NoError(t, os.WriteFile(demand, []byte(trips), 0o600))
	line := []string{"simulate", "--rides", "--demand=" + demand, "--vehicles=2", "--share=1", "--runs=1", "--picture=" + picture}
	r := runCLI(t, t.Context(), "", line...)
	require.Equal(t, exitOK, r.code, r.err)
	require.Contains(t, r.out, "| given (100 %, 2) | batch | 100.00 % |")
	require.Equal(t, 2+4, strings.Count(r.out, "\n"))
	svg, err := os.ReadFile(picture)
	require.NoError(t, err)
	require.Contains(t, string(svg), "<svg")

	r = runCLI(t, t.Context(), "", append(line, "--json", "--rules=fifo")...)
	require.Equal(t, exitOK, r.code, r.err)
	require.Contains(t, r.out, `"rule":"fifo"`)

	for _, bad := range []struct{ flag, fault string }{
		{"--rules=nearest", "matcher"},
		{"--runs=0", "runs"},
		{"--demand=" + filepath.Join(dir, "none.csv"), "none.csv"},
	} {
		r := runCLI(t, t.Context(), "", append(line, bad.flag)...)
		require.Equal(t, exitUsage, r.code, bad.flag)
		require.Contains(t, r.err, bad.fault)
	}
}
