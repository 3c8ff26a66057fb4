package ridesim

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
)

// Place is a point on a plane, in metres east and north of the demand's centre.
type Place struct{ EastM, NorthM float64 }

func (p Place) distance(q Place) float64 { return math.Hypot(p.EastM-q.EastM, p.NorthM-q.NorthM) }

// Trip is what one rider wants.
type Trip struct {
	// RequestedMS is when, in milliseconds since the Unix epoch.
	RequestedMS     int64
	Pickup, Dropoff Place
}

// metresPerDegree is on the sphere that Starling measures on.
const metresPerDegree = 6371008.8 * math.Pi / 180

// header are the columns of a file of demand that are read; others are passed
// over.
var header = []string{"pickup_unix_ms", "pickup_lat", "pickup_lon", "dropoff_lat", "dropoff_lon"}

// ReadCSV reads a demand: a header with at least pickup_unix_ms, pickup_lat,
// pickup_lon, dropoff_lat and dropoff_lon (degrees), then a line a trip. It fails
// with the line and column that it can't read, or when there is no trip.
func ReadCSV(r io.Reader) ([]Trip, error) {
	lines := csv.NewReader(r)
	names, err := lines.Read()
	if err != nil {
		return nil, fmt.Errorf("header of the demand: %w", err)
	}
	var at [5]int
	for i, name := range header {
		if at[i] = slices.Index(names, name); at[i] < 0 {
			return nil, fmt.Errorf("header of the demand: column %s is missing", name)
		}
	}
	var rows [][5]float64
	for {
		fields, err := lines.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("demand: %w", err)
		}
		var row [5]float64
		for i, name := range header {
			v, err := strconv.ParseFloat(fields[at[i]], 64)
			if most := [...]float64{1e15, 90, 180, 90, 180}[i]; err != nil || !(math.Abs(v) <= most) {
				line, _ := lines.FieldPos(at[i])
				return nil, fmt.Errorf("demand: line %d, %s: %q is not a number up to %v", line, name, fields[at[i]], most)
			}
			row[i] = v
		}
		rows = append(rows, row)
	}
	return placed(rows)
}

// placed puts rows of times and degrees on a plane around their centre.
func placed(rows [][5]float64) ([]Trip, error) {
	if len(rows) == 0 {
		return nil, errors.New("demand: no trips")
	}
	var lat, lon float64
	for _, r := range rows {
		lat += r[1] / float64(len(rows))
		lon += r[2] / float64(len(rows))
	}
	east := metresPerDegree * math.Cos(lat*math.Pi/180)
	trips := make([]Trip, 0, len(rows))
	for _, r := range rows {
		at := func(latDeg, lonDeg float64) Place {
			return Place{(lonDeg - lon) * east, (latDeg - lat) * metresPerDegree}
		}
		trips = append(trips, Trip{RequestedMS: int64(r[0]), Pickup: at(r[1], r[2]), Dropoff: at(r[3], r[4])})
	}
	sortTrips(trips)
	return trips, nil
}

func sortTrips(trips []Trip) {
	slices.SortStableFunc(trips, func(a, b Trip) int { return int(a.RequestedMS - b.RequestedMS) })
}

// Model is a demand of a made-up city: a long dense centre, some places at which
// many rides begin and end, and suburbs.
type Model struct {
	Trips int   `koanf:"trips" help:"How many trips the model's city has."`
	Hours int   `koanf:"hours" help:"Over how many hours, with more of them in the middle."`
	Seed  int64 `koanf:"-"`
}

// modelStartMS is when the model's demand begins.
const modelStartMS = 1_700_000_000_000

// Generate returns the model's trips. It fails when a field breaks its rule.
func (m Model) Generate() ([]Trip, error) {
	if m.Trips < 1 || m.Trips > 10_000_000 || m.Hours < 1 || m.Hours > 24 {
		return nil, fmt.Errorf("model of demand: trips = %d: must be 1 to 10000000; hours = %d: must be 1 to 24", m.Trips, m.Hours)
	}
	rng := rand.New(rand.NewPCG(uint64(m.Seed), 77))
	places := make([]Place, 12)
	for i := range places {
		places[i] = Place{rng.NormFloat64() * 2500, rng.NormFloat64() * 5000}
	}
	draw := func(suburb float64) Place {
		var c Place
		spreadM := 900.0
		switch u := rng.Float64(); {
		case u < suburb:
			spreadM = 7000
		case u < suburb+0.35:
			c = Place{0, (rng.Float64() - 0.5) * 12000}
			spreadM = 1300
		default:
			// A few of the places have most of the rides.
			c = places[int(math.Pow(rng.Float64(), 2)*float64(len(places)))]
		}
		return Place{c.EastM + rng.NormFloat64()*spreadM, c.NorthM + rng.NormFloat64()*spreadM}
	}
	spanMS := float64(m.Hours) * 3_600_000
	trips := make([]Trip, 0, m.Trips)
	for range m.Trips {
		// The sum of two draws: a ramp up and one down.
		at := (rng.Float64() + rng.Float64()) / 2 * spanMS
		t := Trip{RequestedMS: modelStartMS + int64(at), Pickup: draw(0.08), Dropoff: draw(0.15)}
		trips = append(trips, t)
	}
	sortTrips(trips)
	return trips, nil
}

// subset draws a share of the demand.
func subset(demand []Trip, share float64, rng *rand.Rand) []Trip {
	var out []Trip
	for _, t := range demand {
		if rng.Float64() < share {
			out = append(out, t)
		}
	}
	return out
}
