// Command dashboards writes Grafana's dashboards, one per role and one for logs and
// processes, as JSON into a directory:
//
//	go run . ../../deploy/grafana/dashboards
//
// It is a module of its own, so that Grafana's types stay out of the binary's
// dependencies. What a dashboard shows is a table in roles.go and beside.go.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// board is a dashboard; its file and its uid are starling-<name>.
type board struct {
	name, title, description string
	rows                     []row
}

type row struct {
	title  string
	panels []panel
}

// panel shows some queries over time, all in one unit of Grafana's.
type panel struct {
	title, unit, description string
	queries                  []query
}

// query is an expression of PromQL and how its series are named in the legend.
type query struct{ expr, legend string }

// of is the selector of every query: the processes that were chosen at the top.
const of = `instance=~"$instance"`

// rate is what a counter rises by a second, summed by some labels.
func rate(counter, by, legend string) query {
	return query{fmt.Sprintf(`sum by (%s) (rate(%s{%s}[$__rate_interval]))`, by, counter, of), legend}
}

// gauge is a gauge of each process, summed by some labels.
func gauge(name, by, legend string) query {
	return query{fmt.Sprintf(`sum by (%s) (%s{%s})`, by, name, of), legend}
}

// quantiles are the median and the 99th percentile of a histogram over all processes
// chosen.
func quantiles(histogram string) []query {
	var all []query
	for _, q := range []struct{ q, legend string }{{"0.5", "p50"}, {"0.99", "p99"}} {
		all = append(all, query{fmt.Sprintf(`histogram_quantile(%s, sum by (le) (rate(%s_bucket{%s}[$__rate_interval])))`, q.q, histogram, of), q.legend})
	}
	return all
}

// build makes a board's dashboard.
func build(b board) (dashboard.Dashboard, error) {
	source := common.DataSourceRef{Type: new("prometheus"), Uid: new("${source}")}
	d := dashboard.NewDashboardBuilder("Starling: "+b.title).
		Uid("starling-"+b.name).
		Description(b.description).
		Tags([]string{"starling"}).
		Refresh("30s").
		Time("now-1h", "now").
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		WithVariable(dashboard.NewDatasourceVariableBuilder("source").Label("Prometheus").Type("prometheus")).
		WithVariable(dashboard.NewQueryVariableBuilder("instance").Label("process").
			Datasource(source).
			Query(dashboard.StringOrMap{String: new(`label_values(starling_build_info, instance)`)}).
			Refresh(dashboard.VariableRefreshOnTimeRangeChanged).
			Multi(true).IncludeAll(true).AllValue(".*").
			Current(dashboard.VariableOption{Selected: new(true), Text: dashboard.StringOrArrayOfString{String: new("All")}, Value: dashboard.StringOrArrayOfString{String: new("$__all")}}))
	for _, r := range b.rows {
		d = d.WithRow(dashboard.NewRowBuilder(r.title))
		for _, p := range r.panels {
			shown := timeseries.NewPanelBuilder().
				Title(p.title).Description(p.description).Unit(p.unit).
				Datasource(source).Span(8).Height(7).FillOpacity(8).
				Legend(common.NewVizLegendOptionsBuilder().ShowLegend(true).DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom))
			if p.unit != "s" { // clocks and deadlines may be behind
				shown = shown.Min(0)
			}
			for i, q := range p.queries {
				shown = shown.WithTarget(prometheus.NewDataqueryBuilder().RefId(string(rune('A' + i))).Datasource(source).Expr(q.expr).LegendFormat(q.legend).Range())
			}
			d = d.WithPanel(shown)
		}
	}
	return d.Build()
}

// boards are all dashboards.
func boards() []board {
	return []board{ingest, tracker, matcher, fanout, rides, history, logs, processes}
}

func run(dir string) error {
	for _, b := range boards() {
		d, err := build(b)
		if err != nil {
			return fmt.Errorf("build the dashboard of %s: %w", b.name, err)
		}
		text, err := json.MarshalIndent(d, "", " ")
		if err != nil {
			return fmt.Errorf("encode the dashboard of %s: %w", b.name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, "starling-"+b.name+".json"), append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: dashboards DIR")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "dashboards:", err)
		os.Exit(1)
	}
}
