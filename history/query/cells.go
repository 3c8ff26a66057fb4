package query

import (
	"math"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// partCells and partVisits are how many entries a part has at most.
const partCells, partVisits = 1000, 1000

// GetCellStats implements starlingv1.HistoryServiceServer.
func (s *Server) GetCellStats(req *starlingv1.GetCellStatsRequest, out grpc.ServerStreamingServer[starlingv1.GetCellStatsResponse]) error {
	var f faults
	q := store.CellQuery{Period: f.period(req.GetPeriod())}
	q.FromMS, q.ToMS = f.timeRange(req.GetStartTime(), req.GetEndTime(), s.cfg.MaxRange)
	q.Cells = f.cells("within_h3_cells", req.GetWithinH3Cells(), q.Period.Resolution())
	of := digest(req, func(r *starlingv1.GetCellStatsRequest) { r.ResumeToken = "" })
	sentMS, sentCell := int64(math.MinInt64), h3.Cell(0) // the last that the client has
	f.resume(req.GetResumeToken(), statsToken, of, func(b []byte) bool {
		start, cell, ok := parseNumbers(b)
		if ok = ok && start >= q.FromMS && start < q.ToMS; ok {
			q.FromMS, sentMS, sentCell = start, start, h3.Cell(cell)
		}
		return ok
	})
	if err := f.err(); err != nil {
		return err
	}
	if r := sight(out.Context()).period(q.Period); r != nil {
		return s.refused(*r)
	}
	scan, err := s.begin(out.Context())
	if err != nil {
		return err
	}
	defer scan.end()
	part, read := &starlingv1.GetCellStatsResponse{}, 0
	defer func() { s.metrics.stats.Add(float64(read)) }()
	for c, err := range s.store.CellStats(scan, q) {
		if err != nil {
			return scan.failed(err)
		}
		read++
		if c.StartMS == sentMS && c.Cell <= sentCell {
			continue
		}
		part.Cells = append(part.Cells, statsMessage(&c))
		if len(part.Cells) < partCells && read < s.cfg.MaxRows {
			continue
		}
		part.ResumeToken = makeToken(statsToken, of, numbersPlace(c.StartMS, int64(c.Cell)))
		if err := out.Send(part); err != nil || read >= s.cfg.MaxRows {
			return err
		}
		part = &starlingv1.GetCellStatsResponse{}
		if err := scan.late(); err != nil {
			return err
		}
	}
	part.Complete = true
	return out.Send(part)
}

func statsMessage(c *store.CellStat) *starlingv1.CellStats {
	out := &starlingv1.CellStats{
		H3Cell: c.Cell.String(), StartTime: timestampOf(c.StartMS), FixCount: c.Fixes, VehicleCount: c.Vehicles, SpeedCount: c.Speeds,
	}
	if c.Speeds > 0 {
		speeds := &[4]float64{c.MeanSpeedCMPS / 100, float64(c.P50) / 100, float64(c.P85) / 100, float64(c.P95) / 100}
		out.MeanSpeedMps, out.P50SpeedMps, out.P85SpeedMps, out.P95SpeedMps = &speeds[0], &speeds[1], &speeds[2], &speeds[3]
	}
	return out
}
