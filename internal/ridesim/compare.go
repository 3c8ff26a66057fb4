package ridesim

import (
	"context"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/starling-fleet/starling/internal/valid"
	"github.com/starling-fleet/starling/rides/match"
)

// Supply is a part of the demand and how many vehicles serve it.
type Supply struct {
	Name     string  `json:"name"`
	Share    float64 `json:"share"`
	Vehicles int     `json:"vehicles"`
}

// Supplies are those of docs/matching.md, for the demand that it has the figures
// of.
func Supplies() []Supply {
	return []Supply{{"tight", 0.3, 2400}, {"ample", 0.3, 3000}, {"overload", 0.05, 300}}
}

// OfferBatches is the name of the rule of Offers among those to compare.
const OfferBatches = "offers"

// Comparison is every rule at every supply, each in runs of their own.
type Comparison struct {
	// Base is every run's, but for its supply and seed: those of the runs are
	// Base.Seed and the numbers behind it.
	Base     Config
	Runs     int
	Supplies []Supply
	// Rules are names of matchers, and OfferBatches.
	Rules   []string
	Matcher match.Settings
}

// DefaultComparison has all rules at all supplies.
func DefaultComparison() Comparison {
	c := Comparison{Base: DefaultConfig(), Runs: 5, Supplies: Supplies(), Matcher: match.DefaultSettings()}
	for _, name := range match.Names() {
		c.Rules = append(c.Rules, string(name))
	}
	c.Rules = append(c.Rules, OfferBatches)
	return c
}

// Validate returns all faults of c joined, each naming its field and rule, or
// nil.
func (c Comparison) Validate() error {
	var faults valid.Faults
	valid.Between(&faults, "runs", c.Runs, 1, 1000)
	faults.Need(len(c.Supplies) > 0, "supplies", c.Supplies, "at least one")
	faults.Need(len(c.Rules) > 0, "rules", c.Rules, "at least one")
	for _, s := range c.Supplies {
		faults.In("supply "+s.Name, c.config(s, 0).Validate())
	}
	for _, name := range c.Rules {
		_, err := c.rule(name).New(1)
		faults.Add(err)
	}
	return faults.Err()
}

func (c Comparison) config(s Supply, run int) Config {
	cfg := c.Base
	cfg.Share, cfg.Vehicles, cfg.Seed = s.Share, s.Vehicles, c.Base.Seed+int64(run)
	return cfg
}

func (c Comparison) rule(name string) Rule {
	if name == OfferBatches {
		return DefaultOffers(c.Base).Rule()
	}
	return Rule{name, func(int64) (match.Matcher, error) { return match.New(match.Name(name), c.Matcher) }}
}

// Row is what came of one rule at one supply, means over the runs.
type Row struct {
	Supply Supply `json:"supply"`
	Rule   string `json:"rule"`
	Runs   int    `json:"runs"`
	// ServedShare is the part of the requests that were served.
	ServedShare float64 `json:"served_share"`
	WaitS       Spread  `json:"wait_s"`
	PickupM     Spread  `json:"pickup_m"`
	// OnBoardShare and EmptyShare are as in Result.
	OnBoardShare float64 `json:"on_board_share"`
	EmptyShare   float64 `json:"empty_share"`
}

// Compare runs all of it, as many runs at once as there are processors, and
// returns a row for each supply and rule, in their order. It fails when c breaks a
// rule or ctx is done.
func Compare(ctx context.Context, c Comparison, demand []Trip) ([]Row, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("comparison: %w", err)
	}
	results := make([]*Result, len(c.Supplies)*len(c.Rules)*c.Runs)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range results {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			supply, rule, run := c.at(i)
			r, err := Run(c.config(supply, run), demand, c.rule(rule))
			results[i] = r
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var rows []Row
	for i := 0; i < len(results); i += c.Runs {
		supply, rule, _ := c.at(i)
		rows = append(rows, mean(supply, rule, results[i:i+c.Runs]))
	}
	return rows, nil
}

// at returns what the run of a number is.
func (c Comparison) at(i int) (s Supply, rule string, run int) {
	return c.Supplies[i/(len(c.Rules)*c.Runs)], c.Rules[i/c.Runs%len(c.Rules)], i % c.Runs
}

func mean(s Supply, rule string, results []*Result) Row {
	row := Row{Supply: s, Rule: rule, Runs: len(results)}
	part := 1 / float64(len(results))
	add := func(to *Spread, v Spread) {
		to.Mean += v.Mean * part
		to.P50 += v.P50 * part
		to.P95 += v.P95 * part
		to.P99 += v.P99 * part
	}
	for _, r := range results {
		row.ServedShare += r.ServedShare() * part
		row.OnBoardShare += r.OnBoardShare * part
		row.EmptyShare += r.EmptyShare * part
		add(&row.WaitS, r.WaitS)
		add(&row.PickupM, r.PickupM)
	}
	return row
}
