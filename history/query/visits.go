package query

import (
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// FindVisits implements starlingv1.HistoryServiceServer.
func (s *Server) FindVisits(req *starlingv1.FindVisitsRequest, out grpc.ServerStreamingServer[starlingv1.FindVisitsResponse]) error {
	var f faults
	var q store.VisitQuery
	q.FromMS, q.ToMS = f.timeRange(req.GetStartTime(), req.GetEndTime(), s.cfg.MaxRange)
	q.Area = f.area(req)
	of := digest(req, func(r *starlingv1.FindVisitsRequest) { r.ResumeToken = "" })
	f.resume(req.GetResumeToken(), visitsToken, of, func(b []byte) (ok bool) {
		q.After, ok = vehiclePlace(b)
		return ok
	})
	if err := f.err(); err != nil {
		return err
	}
	if r := sight(out.Context()).area(q.Area); r != nil {
		return s.refused(*r)
	}
	scan, err := s.begin(out.Context())
	if err != nil {
		return err
	}
	defer scan.end()
	part, read := &starlingv1.FindVisitsResponse{}, 0
	defer func() { s.metrics.visits.Add(float64(read)) }()
	for v, err := range s.store.Visits(scan, q) {
		if err != nil {
			return scan.failed(err)
		}
		read++
		part.Visits = append(part.Visits, &starlingv1.Visit{
			Name: limits.VehicleNamePrefix + v.Vehicle, FixCount: v.Fixes,
			FirstTime: timestampOf(v.FirstMS), LastTime: timestampOf(v.LastMS),
		})
		if len(part.Visits) < partVisits && read < s.cfg.MaxRows {
			continue
		}
		part.ResumeToken = makeToken(visitsToken, of, []byte(v.Vehicle))
		if err := out.Send(part); err != nil || read >= s.cfg.MaxRows {
			return err
		}
		part = &starlingv1.FindVisitsResponse{}
		if err := scan.late(); err != nil {
			return err
		}
	}
	part.Complete = true
	return out.Send(part)
}

func timestampOf(ms int64) *timestamppb.Timestamp {
	return &timestamppb.Timestamp{Seconds: ms / 1000, Nanos: int32(ms % 1000 * 1e6)}
}
