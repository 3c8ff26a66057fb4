package query

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// ExplainFix implements starlingv1.HistoryServiceServer.
func (s *Server) ExplainFix(ctx context.Context, req *starlingv1.ExplainFixRequest) (*starlingv1.ExplainFixResponse, error) {
	var f faults
	vehicle, atMS := f.Vehicle("name", req.GetName()), f.time("device_time", req.GetDeviceTime())
	if err := f.err(); err != nil {
		return nil, err
	}
	scan, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer scan.end()
	e, err := s.store.Explain(scan, vehicle, atMS)
	if err != nil {
		return nil, scan.failed(err)
	}
	if !e.Found && len(e.Arrivals) == 0 {
		return nil, refuse(codes.NotFound, reasonNoFix, "history knows no fix of "+req.GetName()+" at "+req.GetDeviceTime().AsTime().Format(time.RFC3339Nano), false).err
	}
	s.metrics.fixes.Inc()
	see, out, m := sight(ctx), &starlingv1.ExplainFixResponse{}, &arena{}
	if e.Found {
		if err := see.fix(&e.Fix); err != nil {
			return nil, scan.failed(err)
		}
		out.Fix = m.message(0, &e.Fix, layers{raw: true, corrected: true, display: true})
	}
	for i := range e.Arrivals {
		a := &e.Arrivals[i]
		arrival := &starlingv1.FixArrival{Epoch: a.Epoch, Offset: a.Offset, SessionId: a.Session, Sequence: a.Sequence, Rule: a.Rule}
		if a.Reported != (row.Reported{}) {
			r := reportedFix(&a.Reported)
			if err := see.fix(&r); err != nil {
				return nil, scan.failed(err)
			}
			arrival.Reported = m.reported(&r)
		}
		out.Arrivals = append(out.Arrivals, arrival)
	}
	return out, nil
}

// reportedFix is a fix with what was reported of it.
func reportedFix(r *row.Reported) row.Fix {
	return row.Fix{Raw: r.Position, Has: r.Has, RawSpeedCMPS: r.SpeedCMPS, RawHeadingDDeg: r.HeadingDDeg, AccuracyDM: r.AccuracyDM, AltitudeDM: r.AltitudeDM, Mocked: r.Mocked}
}
