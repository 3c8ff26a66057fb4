package alarmtest_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/alarmtest"
)

// The value is that of the samples with these labels, whatever others they have.
func TestValue(t *testing.T) {
	reg := prometheus.NewRegistry()
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "a_total", Help: "h"}, []string{"x", "y"})
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "b_seconds", Help: "h"})
	reg.MustRegister(v, h)
	v.WithLabelValues("1", "1").Add(1)
	v.WithLabelValues("1", "2").Add(2)
	v.WithLabelValues("2", "2").Add(4)
	h.Observe(7)
	for sample, want := range map[string]float64{`a_total`: 7, `a_total{x="1"}`: 3, `a_total{x="1",y="2"}`: 2, `b_seconds`: 7} {
		got, found := alarmtest.Value(t, reg, sample)
		require.True(t, found, sample)
		require.Equal(t, want, got, sample)
		alarmtest.Raised(t, reg, sample)
	}
	for _, sample := range []string{"a", `a_total{x="3"}`, `a_total{z="1"}`} {
		_, found := alarmtest.Value(t, reg, sample)
		require.False(t, found, sample)
	}
}
