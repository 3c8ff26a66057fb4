package matcher

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/matcher/supply"
)

// registerMetrics registers what the index and the counts hold; the packages
// follow, query and watch have metrics of their own.
func registerMetrics(reg prometheus.Registerer, index *liveindex.Index, counts *supply.Tree) error {
	gauge := func(name, help string, read func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "starling_matcher_" + name, Help: help}, func() float64 { return float64(read()) })
	}
	for _, c := range []prometheus.Collector{
		gauge("vehicles", "Vehicles in the live fleet.", index.Len),
		gauge("supply_cells", "H3 cells of all resolutions that have vehicles.", counts.Len),
	} {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}
