package fleetsim_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/fleetsim"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

func TestAVehicleOnAnErrandDrivesThereAndStays(t *testing.T) {
	f := fleet(t, func(c *fleetsim.Config) { c.RadiusM, c.Vehicles = 2000, 5 })
	at := start
	advance := func(d time.Duration) (reports []*starlingv1.Report) {
		at = at.Add(d)
		for _, x := range f.Advance(at) {
			reports = append(reports, x.Report)
		}
		return reports
	}
	for _, id := range f.VehicleIDs() {
		where := func(p fleetsim.Place) float64 {
			s := f.States()[id]
			return distanceM(s.LatDeg, s.LonDeg, p.LatDeg, p.LonDeg)
		}
		cfg := fleetsim.DefaultConfig()
		to := f.Crossing(fleetsim.Place{LatDeg: cfg.CentreLatDeg + 0.006, LonDeg: cfg.CentreLonDeg - 0.004})
		require.Less(t, distanceM(cfg.CentreLatDeg+0.006, cfg.CentreLonDeg-0.004, to.LatDeg, to.LonDeg), 90.0, "half a block each way")
		arrivals := 0
		f.Send(fleetsim.Errand{VehicleID: id, For: "a", To: &to, Arrived: func() { arrivals++ }})
		for n := 0; arrivals == 0; n++ {
			require.Less(t, n, 900, "%s does not arrive: %v m are left", id, where(to))
			advance(time.Second)
		}
		require.Less(t, where(to), 3.0)
		require.Equal(t, starlingv1.Availability_AVAILABILITY_FREE, f.States()[id].Availability)

		f.Send(fleetsim.Errand{VehicleID: id, For: "b"}) // of somebody else
		for _, r := range advance(5 * time.Minute) {
			require.False(t, r.VehicleId == id && r.Availability != starlingv1.Availability_AVAILABILITY_UNSPECIFIED, "%v", r)
		}
		require.Less(t, where(to), 3.0)
		require.Equal(t, 1, arrivals)

		next := f.Crossing(fleetsim.Place{LatDeg: cfg.CentreLatDeg - 0.003, LonDeg: cfg.CentreLonDeg})
		f.Send(fleetsim.Errand{VehicleID: id, For: "a", To: &next})
		f.Send(fleetsim.Errand{VehicleID: "nobody", To: &to})
		advance(10 * time.Minute)
		require.Less(t, where(next), 3.0)

		f.Send(fleetsim.Errand{VehicleID: id, For: "a"})
		for n := 0; where(next) < 50; n++ {
			require.Less(t, n, 900, "%s goes its own way", id)
			advance(time.Second)
		}
	}
}
