package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/cmd/starling/app"
)

// A ride from a shell: called, matched with a vehicle that was sent by hand, driven
// and followed to its end.
func TestARideFromAShell(t *testing.T) {
	up := upForTests(t)
	rides := "--rides=" + up.Addr(app.Matcher)
	run := func(args ...string) string {
		t.Helper()
		made := runCLI(t, t.Context(), "", args...)
		require.Equal(t, exitOK, made.code, "%v: %s", args, made.err)
		return made.out
	}
	run("send", "car-7", "--at", "48.2085,16.373", "--available", "free", "--ingest="+up.Addr(app.Ingest))
	name := strings.TrimSpace(run("ride", "new", "--rider", "ann", "--pickup", "48.2085,16.373", rides))
	run("ride", "request", name, "--rider", "ann", "--pickup", "48.2085,16.373", "--dropoff", "48.22,16.39", rides)
	require.Eventually(t, func() bool { return strings.Contains(run("ride", "get", name, rides), "assigned") }, time.Minute, 10*time.Millisecond)
	require.Contains(t, run("ride", "list", "--active", rides), name)
	other := runCLI(t, t.Context(), "", "ride", "act", name, "arrive", "--vehicle", "car-8", rides)
	require.Equal(t, exitNo, other.code, "the ride is another vehicle's: %s", other.err)
	require.Contains(t, run("ride", "act", name, "arrive", rides), "arrived")
	require.Contains(t, run("ride", "act", name, "board", rides), "on-board")
	require.Contains(t, run("ride", "act", name, "complete", rides), "completed")
	lines := strings.Split(strings.TrimSpace(run("ride", "watch", name, rides)), "\n")
	require.Len(t, lines, 5)
	for i, kind := range []string{"requested", "assigned", "arrived", "boarded", "completed"} {
		require.Contains(t, lines[i], kind)
	}
}
