package app

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/stretchr/testify/require"
)

// rule is an alert of prometheus/alerts.yml.
type rule struct {
	name, expr, severity, runbook string
}

func alertRules(t *testing.T) (all []rule) {
	t.Helper()
	text, err := os.ReadFile("../../../deploy/prometheus/alerts.yml")
	require.NoError(t, err)
	file, err := yaml.Parser().Unmarshal(text)
	require.NoError(t, err)
	for _, g := range file["groups"].([]any) {
		for _, r := range g.(map[string]any)["rules"].([]any) {
			r := r.(map[string]any)
			all = append(all, rule{
				name:     r["alert"].(string),
				expr:     r["expr"].(string),
				severity: r["labels"].(map[string]any)["severity"].(string),
				runbook:  r["annotations"].(map[string]any)["runbook_url"].(string),
			})
		}
	}
	return all
}

func readText(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(text)
}

var (
	metricName = regexp.MustCompile(`starling_[a-z_0-9]+`)
	heading    = regexp.MustCompile(`[^a-z0-9 -]`)
)

// metricsIn returns the metrics that a text names, those of histograms by their name
// in docs/metrics.md.
func metricsIn(text string) (names []string) {
	for _, m := range metricName.FindAllString(text, -1) {
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			m = strings.TrimSuffix(m, suffix)
		}
		names = append(names, m)
	}
	return names
}

// documented returns the metrics of docs/metrics.md.
func documented(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, m := range metricsIn(readText(t, "../../../docs/metrics.md")) {
		all[m] = true
	}
	require.Greater(t, len(all), 100)
	return all
}

// rowsBySection returns the rows of the runbook's tables, by the anchor of their
// section.
func rowsBySection(t *testing.T) map[string][]string {
	t.Helper()
	sections, anchor := map[string][]string{}, ""
	for line := range strings.Lines(readText(t, "../../../docs/runbook.md")) {
		if title, ok := strings.CutPrefix(strings.TrimSpace(line), "## "); ok {
			anchor = strings.ReplaceAll(heading.ReplaceAllString(strings.ToLower(title), ""), " ", "-")
		}
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| alarm |") {
			sections[anchor] = append(sections[anchor], line)
		}
	}
	return sections
}

// asWords are the alarms of the runbook that no metric shows, so that no rule can.
var asWords = []string{"`up` is 0", "alike_suppressed", "killed for memory", "too small for the log", "/readyz"}

// Each alert has an entry in the section of the runbook that it names, of the same
// severity; each alarm of the runbook that has a metric has an alert.
func TestAlertsAndRunbookAgree(t *testing.T) {
	known, sections := documented(t), rowsBySection(t)
	alerted := map[string]bool{}
	for _, r := range alertRules(t) {
		anchor, ok := strings.CutPrefix(r.runbook, "docs/runbook.md#")
		require.True(t, ok, "%s: runbook_url %s is not a section of docs/runbook.md", r.name, r.runbook)
		require.Contains(t, sections, anchor, "%s: docs/runbook.md has no section %s", r.name, anchor)
		require.Contains(t, []string{"page", "ticket"}, r.severity, "%s", r.name)
		names := metricsIn(r.expr)
		for _, m := range names {
			require.True(t, known[m], "%s: %s is not in docs/metrics.md", r.name, m)
			alerted[m] = true
		}
		if r.name == "StarlingDown" {
			names = []string{"`up` is 0"}
		}
		entry := false
		for _, row := range sections[anchor] {
			entry = entry || containsAny(row, names)
		}
		require.True(t, entry, "%s: no entry of docs/runbook.md#%s names one of %v", r.name, anchor, names)
	}
	for anchor, rows := range sections {
		for _, row := range rows {
			cell, _, _ := strings.Cut(row, " | ")
			for _, m := range metricsIn(cell) {
				require.True(t, alerted[m] || m == "starling_redis_positions_lag_seconds",
					"no alert for %s of docs/runbook.md#%s", m, anchor)
			}
			if len(metricsIn(cell)) == 0 {
				require.True(t, containsAny(cell, asWords), "the alarm %q has no metric", cell)
			}
		}
	}
}

func containsAny(text string, words []string) bool {
	for _, w := range words {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

// promtool raises every alert of alerts.yml by the series of alerts_test.yml, and no
// other with it.
func TestAlertsAreRaised(t *testing.T) {
	cases := readText(t, "../../../deploy/prometheus/alerts_test.yml")
	for _, r := range alertRules(t) {
		require.Contains(t, cases, `{alertname="`+r.name+`", severity="`+r.severity+`"}`, "alerts_test.yml does not raise %s", r.name)
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		require.NotEqual(t, "true", os.Getenv("CI"), "promtool is not installed; on Debian: apt-get install prometheus")
		t.Skip("promtool is not installed; on Debian: apt-get install prometheus")
	}
	for _, args := range [][]string{{"check", "rules", "../../../deploy/prometheus/alerts.yml"}, {"test", "rules", "../../../deploy/prometheus/alerts_test.yml"}, {"check", "config", "--syntax-only", "../../../deploy/prometheus/prometheus.yml"}} {
		out, err := exec.Command(promtool, args...).CombinedOutput()
		require.NoError(t, err, "promtool %v: %s", args, out)
	}
}
