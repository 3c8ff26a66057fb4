// Package alarmtest lets tests show that they raise an alarm of docs/runbook.md.
// TestEveryAlarmIsRaised (in cmd/starling/app) reads the calls out of the tests'
// source and fails when an alarm has none, so that none is only ever written down.
//
// For tests alone; imports nothing of ours.
package alarmtest

import (
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
)

// Raised requires that a metric is not zero, as what the test has done must have
// made it. The alarm is a literal: a metric's name, with labels in braces where the
// runbook has some, such as `starling_reloads_total{result="failed"}`. Samples with
// other labels beside these are added up; of a histogram the sum of what it observed
// counts.
func Raised(t testing.TB, metrics prometheus.Gatherer, alarm string) {
	t.Helper()
	RaisedTo(t, metrics, alarm, func(value float64) bool { return value != 0 })
}

// RaisedTo is Raised for a metric that alarms by another value than one that is not
// zero.
func RaisedTo(t testing.TB, metrics prometheus.Gatherer, alarm string, alarms func(value float64) bool) {
	t.Helper()
	value, found := Value(t, metrics, alarm)
	require.True(t, found, "there is no metric %s", alarm)
	require.True(t, alarms(value), "%s is %v, which is no alarm", alarm, value)
}

// Reads requires a text that an alarm is known by, such as a line of the log or an
// answer, to contain the alarm's words, a literal that the runbook quotes.
func Reads(t testing.TB, text, alarm string) {
	t.Helper()
	require.Contains(t, text, alarm)
}

var label = regexp.MustCompile(`([a-z_]+)="([^"]*)"`)

// Value returns the sum of a metric's samples with some labels, written as in
// Raised, and false if there are none.
func Value(t testing.TB, metrics prometheus.Gatherer, sample string) (sum float64, found bool) {
	t.Helper()
	families, err := metrics.Gather()
	require.NoError(t, err)
	name, labels, _ := strings.Cut(sample, "{")
	want := label.FindAllStringSubmatch(labels, -1)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if !has(m, want) {
				continue
			}
			found = true
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetHistogram().GetSampleSum()
		}
	}
	return sum, found
}

// has reports whether a sample has labels, each as a match of name and value.
func has(m *dto.Metric, want [][]string) bool {
	for _, w := range want {
		found := false
		for _, l := range m.GetLabel() {
			found = found || l.GetName() == w[1] && l.GetValue() == w[2]
		}
		if !found {
			return false
		}
	}
	return true
}
