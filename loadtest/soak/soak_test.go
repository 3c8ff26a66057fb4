package soak

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/loadtest/starlingtest"
)

func TestMain(m *testing.M) { starlingtest.Main(m) }

// A short soak goes through both phases; what is flat in so short a time is not
// judged.
func TestSoak(t *testing.T) {
	o := DefaultOptions()
	o.Starling, o.WorkDir = starlingtest.Command(t), t.TempDir()
	o.Duration, o.Silence, o.Settle, o.Calibration, o.SampleInterval = time.Second, time.Second, 200*time.Millisecond, 200*time.Millisecond, 100*time.Millisecond
	o.Streams, o.VehiclesPerStream, o.Windows, o.Band = 2, 5, 2, 1e6
	o.Fill = 0.01
	o.Progress = func(s string) { t.Log(s) }
	r, err := Run(t.Context(), o)
	require.NoError(t, err)
	t.Log("\n" + r.String())
	require.Empty(t, r.Faults)
	require.Positive(t, r.SustainableFixesPerSecond)
	require.Len(t, r.Phases, 2)
	for _, p := range r.Phases {
		require.Len(t, p.Windows, 2)
		require.Positive(t, p.Resident)
		require.Positive(t, p.Disk)
	}
}

// What grows, shrinks or is not there is a fault; what swings within a window is not.
func TestJudgement(t *testing.T) {
	const mib = 1 << 20
	phase := func(memory, disk func(i int) int64) Phase {
		var samples []sample
		for i := range 100 {
			samples = append(samples, sample{at: time.Duration(i) * time.Second, residentB: memory(i) * mib, diskB: disk(i) * mib})
		}
		return newPhase("load", samples, 5, 100*time.Second)
	}
	flat := func(int) int64 { return 1000 }
	swings := func(i int) int64 { return 1000 + int64(i%10)*100 }
	grows := func(i int) int64 { return 1000 + int64(i)*4 }
	falls := func(i int) int64 { return 1000 - int64(i)*4 }
	for name, c := range map[string]struct {
		memory, disk func(int) int64
		faults       int
	}{
		"flat":         {flat, flat, 0},
		"swings":       {swings, swings, 0},
		"memory grows": {grows, flat, 2},
		"disk grows":   {flat, grows, 2},
		"memory falls": {falls, flat, 2},
		"no disk":      {flat, func(int) int64 { return 0 }, 5},
	} {
		p := phase(c.memory, c.disk)
		require.Len(t, p.judge(0.10), c.faults, name)
	}
}

func TestValidateNamesEveryFault(t *testing.T) {
	_, err := Run(t.Context(), Options{Settle: -1, FixesPerSecond: -1})
	for _, field := range []string{"starling", "duration", "settle", "rate", "calibration", "streams", "fixes_per_report", "retention_bytes", "windows", "band", "sample_interval"} {
		require.ErrorContains(t, err, field)
	}
}
