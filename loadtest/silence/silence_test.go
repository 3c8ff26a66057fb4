package silence

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A parked fleet stores nothing but its partitions' own state once its windows
// have closed, and each vehicle is published again at the longest interval.
func TestAParkedFleetStoresNothing(t *testing.T) {
	o := DefaultOptions()
	o.Vehicles, o.Partitions, o.Reports, o.For = 200, 2, 2, time.Hour
	r, err := Run(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, 200, r.Known)
	require.Zero(t, r.Forgotten)
	require.InEpsilon(t, 200*86_400/60, r.Steady.Refreshes, 0.01)
	require.Less(t, r.Steady.CheckpointBytes, 2*8640*1000.0)
	require.Greater(t, r.All.CheckpointBytes, r.Steady.CheckpointBytes)
	require.Positive(t, r.HeapBytes)
	require.Contains(t, r.String(), "200 vehicles of 2 partitions")
	require.Empty(t, r.Misses())
}

// Invented vehicles are gone after ten minutes.
func TestInventedVehiclesAreForgotten(t *testing.T) {
	o := DefaultOptions()
	o.Vehicles, o.Partitions, o.Reports, o.For = 200, 2, 1, time.Hour
	r, err := Run(t.Context(), o)
	require.NoError(t, err)
	require.Zero(t, r.Known)
	require.EqualValues(t, 200, r.Forgotten)
	require.Zero(t, r.Steady.Refreshes)
}

func TestOptionsNameTheirFaults(t *testing.T) {
	require.NoError(t, DefaultOptions().Validate())
	for field, change := range map[string]func(*Options){
		"vehicles":            func(o *Options) { o.Vehicles = 0 },
		"partitions":          func(o *Options) { o.Partitions = o.Vehicles + 1 },
		"reports":             func(o *Options) { o.Reports = 0 },
		"for":                 func(o *Options) { o.For = time.Second },
		"checkpoint_interval": func(o *Options) { o.CheckpointInterval = 0 },
	} {
		o := DefaultOptions()
		change(&o)
		require.ErrorContains(t, o.Validate(), field+" is ")
		_, err := Run(t.Context(), o)
		require.ErrorContains(t, err, field+" is ")
	}
}
