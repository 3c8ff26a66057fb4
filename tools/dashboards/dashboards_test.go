package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

const written = "../../deploy/grafana/dashboards"

// The files of the repository are what this program writes.
func TestDashboardsAreCurrent(t *testing.T) {
	dir := t.TempDir()
	if err := run(dir); err != nil {
		t.Fatal(err)
	}
	for _, b := range boards() {
		name := "starling-" + b.name + ".json"
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if is, err := os.ReadFile(filepath.Join(written, name)); err != nil || string(is) != string(want) {
			t.Errorf("%s is not current (%v): make dashboards", name, err)
		}
	}
	files, err := filepath.Glob(filepath.Join(written, "*.json"))
	if err != nil || len(files) != len(boards()) {
		t.Errorf("%s has %d files for %d dashboards (%v)", written, len(files), len(boards()), err)
	}
}

// Every query parses and asks for metrics that docs/metrics.md has; what is a rate is
// one of a counter, what is a quantile one of a histogram.
func TestQueriesAskForMetricsThatThereAre(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{"process_cpu_seconds_total": "counter", "process_resident_memory_bytes": "gauge", "go_goroutines": "gauge"}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_0-9]+)` \\| ([a-z]+) \\|").FindAllStringSubmatch(string(text), -1) {
		kinds[m[1]] = m[2]
	}
	variables := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*")
	for _, b := range boards() {
		for _, r := range b.rows {
			for _, p := range r.panels {
				for _, q := range p.queries {
					expr, err := parser.NewParser(parser.Options{}).ParseExpr(variables.Replace(q.expr))
					if err != nil {
						t.Errorf("%s, %s: %s: %v", b.title, p.title, q.expr, err)
						continue
					}
					parser.Inspect(expr, func(n parser.Node, path []parser.Node) error {
						s, ok := n.(*parser.VectorSelector)
						if !ok {
							return nil
						}
						name, kind := s.Name, "gauge"
						if base, ok := strings.CutSuffix(name, "_bucket"); ok {
							name, kind = base, "histogram"
						} else if len(path) > 0 {
							if _, ranged := path[len(path)-1].(*parser.MatrixSelector); ranged {
								kind = "counter"
							}
						}
						if kinds[name] != kind {
							t.Errorf("%s, %s: %s is used as a %s and is %q in docs/metrics.md", b.title, p.title, name, kind, kinds[name])
						}
						return nil
					})
				}
			}
		}
	}
}
