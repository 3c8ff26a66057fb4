package ridesim_test

import (
	"bytes"
	"compress/gzip"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/ridesim"
	"github.com/starling-fleet/starling/rides/match"
)

// demand is the recorded one. Away from it tests report it and skip; in CI they
// must run.
func demand(t *testing.T) []ridesim.Trip {
	t.Helper()
	data := os.Getenv("STARLING_DATA")
	if data == "" {
		data = filepath.Join("..", "..", "..", "shared", "data")
	}
	f, err := os.Open(filepath.Join(data, "demand", "nyc_taxi_2015-01-10.csv.gz"))
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("CI needs the demand: %v", err)
		}
		t.Skipf("no recorded demand: %v (set STARLING_DATA)", err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	trips, err := ridesim.ReadCSV(z)
	require.NoError(t, err)
	require.Len(t, trips, 31_622)
	return trips
}

func model(t *testing.T, trips int) []ridesim.Trip {
	t.Helper()
	out, err := ridesim.Model{Trips: trips, Hours: 1, Seed: 4}.Generate()
	require.NoError(t, err)
	return out
}

func fifo(int64) (match.Matcher, error) { return match.New(match.FIFO, match.DefaultSettings()) }

// One vehicle and two trips, by hand: at 6 m/s and detour 1.2 a kilometre takes
// 200 s.
func TestARideByHand(t *testing.T) {
	cfg := ridesim.Config{Vehicles: 1, Share: 1, Seed: 1, SpeedMPS: 6, Detour: 1.2, Search: 5 * time.Minute, Step: time.Second}
	at := func(km float64) ridesim.Place { return ridesim.Place{EastM: 1000 * km} }
	trips := []ridesim.Trip{
		{RequestedMS: 0, Pickup: at(0), Dropoff: at(1)},
		{RequestedMS: 100_000, Pickup: at(0), Dropoff: at(2)}, // the vehicle comes back: 100 s and 200 s
		{RequestedMS: 110_000, Pickup: at(0), Dropoff: at(2)}, // nobody until the deadline
	}
	r, err := ridesim.Run(cfg, trips, ridesim.Rule{Name: "fifo", New: fifo})
	require.NoError(t, err)
	require.Equal(t, 3, r.Requests)
	require.Equal(t, 2, r.Served)
	require.InDelta(t, (0.0+300+300)/3, r.WaitS.Mean, 1e-9)
	require.InDelta(t, 600, r.PickupM.Mean, 1e-9, "0 and 1,200 m of way")
	require.InDelta(t, 1200, r.PickupM.P95, 1e-9)
	require.InDelta(t, 1.0, r.OnBoardShare+r.EmptyShare, 0.01, "it is never idle meanwhile")
	require.Zero(t, r.Refused)
}

func TestTheSameSeedGivesTheSameResult(t *testing.T) {
	trips := model(t, 1000)
	c := ridesim.DefaultComparison()
	c.Runs, c.Supplies = 2, []ridesim.Supply{{Name: "small", Share: 0.5, Vehicles: 120}}
	one, err := ridesim.Compare(t.Context(), c, trips)
	require.NoError(t, err)
	two, err := ridesim.Compare(t.Context(), c, trips)
	require.NoError(t, err)
	require.Equal(t, one, two)
	c.Base.Seed = 77
	other, err := ridesim.Compare(t.Context(), c, trips)
	require.NoError(t, err)
	require.NotEqual(t, one, other)

	require.Len(t, one, 4)
	byRule := map[string]ridesim.Row{}
	for _, r := range one {
		byRule[r.Rule] = r
		require.Greater(t, r.ServedShare, 0.3)
		require.LessOrEqual(t, r.OnBoardShare+r.EmptyShare, 1.0)
	}
	require.Less(t, byRule["batch"].PickupM.Mean, byRule["fifo"].PickupM.Mean)
	require.Less(t, byRule["batch"].PickupM.Mean, byRule["balancing"].PickupM.Mean)

	var table, picture bytes.Buffer
	require.NoError(t, ridesim.Table(&table, one))
	require.Equal(t, 2+4, strings.Count(table.String(), "\n"))
	require.NoError(t, ridesim.Picture(&picture, one))
	bars := 0
	for d := xml.NewDecoder(&picture); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	require.Equal(t, 1+3*4+4, bars, "the ground, three panels of four bars, and their names")
}

// The recorded demand in overload, which is short; TestBars has the rest.
func TestBatchInOverload(t *testing.T) {
	c := ridesim.DefaultComparison()
	c.Runs, c.Supplies, c.Rules = 1, c.Supplies[2:], []string{"balancing", "batch"}
	rows, err := ridesim.Compare(t.Context(), c, demand(t))
	require.NoError(t, err)
	requireOverload(t, rows[0], rows[1])
}

func requireOverload(t *testing.T, balancing, batch ridesim.Row) {
	t.Helper()
	require.LessOrEqual(t, batch.PickupM.Mean, balancing.PickupM.Mean)
	require.LessOrEqual(t, batch.WaitS.Mean, balancing.WaitS.Mean)
	require.GreaterOrEqual(t, batch.ServedShare, balancing.ServedShare-0.003)
}

// TestBars holds the batch matcher to what docs/matching.md promises of it on the
// recorded demand.
func TestBars(t *testing.T) {
	if os.Getenv("STARLING_LONG") == "" {
		t.Skip("minutes: make rides-sim runs it (STARLING_LONG)")
	}
	c := ridesim.DefaultComparison()
	rows, err := ridesim.Compare(t.Context(), c, demand(t))
	require.NoError(t, err)
	var table bytes.Buffer
	require.NoError(t, ridesim.Table(&table, rows))
	t.Log("\n" + table.String())
	row := func(supply, rule string) ridesim.Row {
		for _, r := range rows {
			if r.Supply.Name == supply && r.Rule == rule {
				return r
			}
		}
		t.Fatalf("no row %s %s", supply, rule)
		return ridesim.Row{}
	}
	fifo, balancing, batch := row("tight", "fifo"), row("tight", "balancing"), row("tight", "batch")
	require.LessOrEqual(t, batch.PickupM.Mean, 0.75*fifo.PickupM.Mean)
	require.LessOrEqual(t, batch.PickupM.Mean, 0.85*balancing.PickupM.Mean)
	require.LessOrEqual(t, batch.WaitS.Mean, 0.70*fifo.WaitS.Mean)
	require.LessOrEqual(t, batch.WaitS.P95, fifo.WaitS.P95)
	require.GreaterOrEqual(t, batch.ServedShare, fifo.ServedShare-0.005)

	fifo, batch = row("ample", "fifo"), row("ample", "batch")
	require.LessOrEqual(t, batch.PickupM.Mean, 0.85*fifo.PickupM.Mean)
	require.LessOrEqual(t, batch.WaitS.Mean, fifo.WaitS.Mean)
	require.GreaterOrEqual(t, batch.ServedShare, fifo.ServedShare-0.0005, "no worse to a tenth of a point")

	requireOverload(t, row("overload", "balancing"), row("overload", "batch"))
}

func TestBadDemandIsRefused(t *testing.T) {
	const header = "pickup_unix_ms,pickup_lat,pickup_lon,dropoff_lat,dropoff_lon,passengers\n"
	for in, fault := range map[string]string{
		"":                                    "header of the demand",
		"pickup_unix_ms,pickup_lat\n":         "column pickup_lon is missing",
		header:                                "no trips",
		header + "1,91,0,0,0,1\n":             "line 2, pickup_lat",
		header + "1,0,0,0,0,1\n1,0,0,0,x,1\n": "line 3, dropoff_lon",
		header + "1,0,NaN,0,0,1\n":            "line 2, pickup_lon",
	} {
		_, err := ridesim.ReadCSV(strings.NewReader(in))
		require.ErrorContains(t, err, fault)
	}
	trips, err := ridesim.ReadCSV(strings.NewReader(header + "5,48.001,11,48,11,1\n4,47.999,11,48,11,1\n"))
	require.NoError(t, err)
	require.Equal(t, int64(4), trips[0].RequestedMS, "sorted by time")
	require.InDelta(t, 111.195, trips[1].Pickup.NorthM, 0.01)
}

func TestBadConfigurationIsRefused(t *testing.T) {
	for field, change := range map[string]func(*ridesim.Comparison){
		"runs":      func(c *ridesim.Comparison) { c.Runs = 0 },
		"vehicles":  func(c *ridesim.Comparison) { c.Supplies = []ridesim.Supply{{Name: "x", Share: 1}} },
		"share":     func(c *ridesim.Comparison) { c.Supplies = []ridesim.Supply{{Name: "x", Vehicles: 1}} },
		"matcher":   func(c *ridesim.Comparison) { c.Rules = []string{"nearest"} },
		"speed_mps": func(c *ridesim.Comparison) { c.Base.SpeedMPS = math.Inf(1) },
		"rules":     func(c *ridesim.Comparison) { c.Rules = nil },
	} {
		c := ridesim.DefaultComparison()
		change(&c)
		_, err := ridesim.Compare(t.Context(), c, model(t, 10))
		require.ErrorContains(t, err, field)
	}
}
