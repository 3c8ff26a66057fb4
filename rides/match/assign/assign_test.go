package assign_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/rides/match/assign"
)

// problem is one that brute force and scipy are given as well.
type problem struct {
	Columns int         `json:"columns"`
	Alone   []float64   `json:"alone"`
	Costs   [][]float64 `json:"costs"` // negative: forbidden
}

func (p *problem) build() *assign.Problem {
	var out assign.Problem
	out.Reset(p.Columns)
	for row, costs := range p.Costs {
		out.Row(p.Alone[row])
		for column, c := range costs {
			if c >= 0 {
				out.Edge(column, c)
			}
		}
	}
	return &out
}

// best is the least sum by trying everything.
func (p *problem) best(row int, taken uint64) float64 {
	if row == len(p.Costs) {
		return 0
	}
	least := p.Alone[row] + p.best(row+1, taken)
	for column, c := range p.Costs[row] {
		if c >= 0 && taken&(1<<column) == 0 {
			least = min(least, c+p.best(row+1, taken|1<<column))
		}
	}
	return least
}

// requireSound checks that a solution is one, and that its cost is the sum.
func requireSound(t testing.TB, p *problem, columnOf []int32, cost float64) {
	t.Helper()
	require.Len(t, columnOf, len(p.Costs))
	taken, sum := map[int32]bool{}, 0.0
	for row, column := range columnOf {
		if column == assign.None {
			sum += p.Alone[row]
			continue
		}
		require.False(t, taken[column], "column %d is taken twice", column)
		taken[column] = true
		require.GreaterOrEqual(t, p.Costs[row][column], 0.0, "row %d took a forbidden column", row)
		sum += p.Costs[row][column]
	}
	require.InDelta(t, sum, cost, 1e-9*(1+math.Abs(sum)))
}

func random(rng *rand.Rand, rows, columns int) *problem {
	p := &problem{Columns: columns}
	share := []float64{1, 0.7, 0.3, 0.1}[rng.IntN(4)]
	coarse := rng.IntN(2) == 0 // many equal costs
	draw := func(most float64) float64 {
		if coarse {
			return float64(rng.IntN(5))
		}
		return most * rng.Float64()
	}
	for range rows {
		p.Alone = append(p.Alone, draw(120))
		costs := make([]float64, columns)
		for i := range costs {
			if costs[i] = -1; rng.Float64() < share {
				costs[i] = draw(100)
			}
		}
		p.Costs = append(p.Costs, costs)
	}
	return p
}

func TestNothingIsCheaper(t *testing.T) {
	var s assign.Solver
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		p := random(rng, rng.IntN(7), rng.IntN(7))
		columnOf, cost, err := s.Solve(p.build())
		require.NoError(t, err)
		requireSound(t, p, columnOf, cost)
		require.InDelta(t, p.best(0, 0), cost, 1e-9, "seed %d", seed)
	}
}

func TestAsManyAsPossibleComeFirst(t *testing.T) {
	var s assign.Solver
	for seed := range uint64(1000) {
		rng := rand.New(rand.NewPCG(seed, 2))
		p := random(rng, 1+rng.IntN(6), 1+rng.IntN(6))
		built := p.build()
		built.MostFirst()
		columnOf, _, err := s.Solve(built)
		require.NoError(t, err)
		served, sum := 0, 0.0
		for row, column := range columnOf {
			if column != assign.None {
				served++
				sum += p.Costs[row][column]
			}
		}
		// Brute force by the same order: first how many, then how dear.
		for i := range p.Alone {
			p.Alone[i] = 1e6
		}
		best := p.best(0, 0)
		alone := math.Floor(best / 1e6)
		require.InDelta(t, float64(len(p.Costs))-alone, served, 0, "seed %d", seed)
		require.InDelta(t, best-alone*1e6, sum, 1e-6, "seed %d", seed)
	}
}

// golden is what tools/assign-golden.py wrote: cases and scipy's least sums.
type golden struct {
	Scipy string `json:"scipy"`
	Cases []struct {
		Rows    int     `json:"rows"`
		Columns int     `json:"columns"`
		Share   float64 `json:"share"`
		Seed    uint64  `json:"seed"`
		Cost    float64 `json:"cost"`
	} `json:"cases"`
}

// lcg draws what tools/assign-golden.py draws, so that the cases need not be
// stored.
type lcg uint64

func (g *lcg) next() float64 {
	*g = *g*6364136223846793005 + 1442695040888963407
	return float64(*g>>33) / (1 << 31)
}

func TestTheSumsAreThoseOfScipy(t *testing.T) {
	b, err := os.ReadFile("testdata/scipy.json")
	require.NoError(t, err)
	var g golden
	require.NoError(t, json.Unmarshal(b, &g))
	require.Len(t, g.Cases, 1000)
	var s assign.Solver
	for i, c := range g.Cases {
		draw := lcg(c.Seed)
		p := &problem{Columns: c.Columns}
		for range c.Rows {
			p.Alone = append(p.Alone, 400+1000*draw.next())
			costs := make([]float64, c.Columns)
			for j := range costs {
				if costs[j] = -1; draw.next() < c.Share {
					costs[j] = 1000 * draw.next()
				}
			}
			p.Costs = append(p.Costs, costs)
		}
		columnOf, cost, err := s.Solve(p.build())
		require.NoError(t, err)
		requireSound(t, p, columnOf, cost)
		require.InDelta(t, c.Cost, cost, 1e-9*c.Cost+1e-9, "case %d", i)
	}
}

func TestABadProblemIsRefused(t *testing.T) {
	for rule, build := range map[string]func(*assign.Problem){
		"edge 0: column 2 is not one of 2":            func(p *assign.Problem) { p.Edge(2, 1) },
		"edge 0: column -1 is not one of 2":           func(p *assign.Problem) { p.Edge(-1, 1) },
		"edge 1: cost NaN must be finite":             func(p *assign.Problem) { p.Edge(0, 1); p.Edge(1, math.NaN()) },
		"cost of row 1 alone is +Inf: must be finite": func(p *assign.Problem) { p.Row(math.Inf(1)) },
	} {
		var p assign.Problem
		p.Reset(2)
		p.Row(5)
		build(&p)
		_, _, err := new(assign.Solver).Solve(&p)
		require.EqualError(t, err, rule)
	}
}

func FuzzSolve(f *testing.F) {
	f.Add(uint64(1), uint8(3), uint8(4))
	f.Add(uint64(7), uint8(6), uint8(2))
	var s assign.Solver
	f.Fuzz(func(t *testing.T, seed uint64, rows, columns uint8) {
		p := random(rand.New(rand.NewPCG(seed, 3)), int(rows%8), int(columns%8))
		columnOf, cost, err := s.Solve(p.build())
		require.NoError(t, err)
		requireSound(t, p, columnOf, cost)
		require.InDelta(t, p.best(0, 0), cost, 1e-9)
	})
}

// dense is a problem of uniform costs, as scipy's own benchmarks have.
func dense(rows, columns int) *assign.Problem {
	rng := rand.New(rand.NewPCG(1, 1))
	var p assign.Problem
	p.Reset(columns)
	for range rows {
		p.Row(1e6)
		for column := range columns {
			p.Edge(column, 1000*rng.Float64())
		}
	}
	return &p
}

// crowded is one as matching has: the candidates of each row are the nearest
// columns of a plane on which rows gather in a few places.
func crowded(rows, columns, candidates int) *assign.Problem {
	rng := rand.New(rand.NewPCG(1, 2))
	xs, ys := make([]float64, columns), make([]float64, columns)
	for i := range columns {
		xs[i], ys[i] = rng.Float64()*20000, rng.Float64()*20000
	}
	var p assign.Problem
	p.Reset(columns)
	type near struct {
		column   int
		distance float64
	}
	for row := range rows {
		cx, cy := float64(row%7)*2500+2000, float64(row%5)*3500+2000
		x, y := cx+rng.NormFloat64()*1500, cy+rng.NormFloat64()*1500
		best := make([]near, 0, candidates+1)
		for j := range columns {
			d := math.Hypot(xs[j]-x, ys[j]-y)
			if len(best) == candidates && d >= best[len(best)-1].distance {
				continue
			}
			at := len(best)
			best = append(best, near{})
			for at > 0 && best[at-1].distance > d {
				best[at] = best[at-1]
				at--
			}
			best[at] = near{j, d}
			best = best[:min(len(best), candidates)]
		}
		p.Row(20000)
		for _, b := range best {
			p.Edge(b.column, b.distance)
		}
	}
	return &p
}

func benchmark(b *testing.B, p *assign.Problem) {
	var s assign.Solver
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.Solve(p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDense200x1000(b *testing.B)       { benchmark(b, dense(200, 1000)) }
func BenchmarkSparse2000x20000x32(b *testing.B) { benchmark(b, crowded(2000, 20000, 32)) }

// BenchmarkScarce2000x500x32 has four rows for each column.
func BenchmarkScarce2000x500x32(b *testing.B) { benchmark(b, crowded(2000, 500, 32)) }
