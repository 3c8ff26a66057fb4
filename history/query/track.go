package query

import (
	"math"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// partFixes is how many fixes a part of a track has at most; about 100 KiB.
const partFixes = 1000

// layers are what is sent of each fix.
type layers struct {
	first                   starlingv1.TrackLayer
	raw, corrected, display bool
}

// GetTrack implements starlingv1.HistoryServiceServer.
func (s *Server) GetTrack(req *starlingv1.GetTrackRequest, out grpc.ServerStreamingServer[starlingv1.GetTrackResponse]) error {
	var f faults
	q := store.TrackQuery{Vehicle: f.Vehicle("name", req.GetName())}
	q.FromMS, q.ToMS = f.timeRange(req.GetStartTime(), req.GetEndTime(), s.cfg.MaxRange)
	intervalMS, toleranceM := f.thinning(req)
	t := &trackSender{out: out, layers: f.layers(req.GetLayers()), sentMS: math.MinInt64}
	t.digest = digest(req, func(r *starlingv1.GetTrackRequest) { r.ResumeToken = "" })
	f.resume(req.GetResumeToken(), trackToken, t.digest, func(b []byte) (ok bool) {
		from, sent, ok := parseNumbers(b)
		if ok = ok && from >= q.FromMS && from <= q.ToMS && sent >= q.FromMS && sent < q.ToMS; ok {
			q.FromMS, t.sentMS = from, sent
		}
		return ok
	})
	if err := f.err(); err != nil {
		return err
	}
	scan, err := s.begin(out.Context())
	if err != nil {
		return err
	}
	defer scan.end()
	thin := t.thinner(intervalMS, toleranceM)
	see := sight(out.Context())
	read := 0
	defer func() { s.metrics.fixes.Add(float64(read)) }()
	for fix, err := range s.store.Track(scan, q) {
		if err != nil {
			return scan.failed(err)
		}
		if read++; read%partFixes == 0 {
			if err := scan.late(); err != nil {
				return err
			}
		}
		if err := see.fix(&fix); err != nil {
			return scan.failed(err)
		}
		if err := thin.add(&fix); err != nil {
			return err
		}
		if read >= s.cfg.MaxRows && thin.mayStop() {
			return t.send(fix.DeviceTimeMS + thin.again())
		}
	}
	if err := thin.flush(); err != nil {
		return err
	}
	return out.Send(&starlingv1.GetTrackResponse{Fixes: t.fixes, Complete: true})
}

// trackSender sends fixes in parts.
type trackSender struct {
	out    grpc.ServerStreamingServer[starlingv1.GetTrackResponse]
	layers layers
	digest [digestBytes]byte
	// sentMS is the device time of the last fix that the client has, of earlier
	// calls too.
	sentMS int64

	fixes []*starlingv1.TrackFix // of the part
	arena *arena
}

// arena is the memory of a part's messages: a few allocations for all of them.
type arena struct {
	fixes     [partFixes]starlingv1.TrackFix
	times     [partFixes]timestamppb.Timestamp
	corrected []starlingv1.CorrectedPosition
	raw       []starlingv1.ReportedPosition
	places    []starlingv1.Place
	numbers   []float64
}

// add appends a fix. When the part is full it sends it with a token from which
// reading goes on at nextMS.
func (t *trackSender) add(f *row.Fix, nextMS int64) error {
	if t.arena == nil {
		t.arena = &arena{}
		t.fixes = make([]*starlingv1.TrackFix, 0, partFixes)
	}
	n := len(t.fixes)
	t.fixes = append(t.fixes, t.arena.message(n, f, t.layers))
	t.sentMS = f.DeviceTimeMS
	if n+1 < partFixes {
		return nil
	}
	return t.send(nextMS)
}

// send sends what there is, with a token from which reading goes on at nextMS.
func (t *trackSender) send(nextMS int64) error {
	part := &starlingv1.GetTrackResponse{Fixes: t.fixes, ResumeToken: makeToken(trackToken, t.digest, numbersPlace(nextMS, t.sentMS))}
	t.fixes, t.arena = nil, nil // gRPC has them now
	return t.out.Send(part)
}

var kinds = map[row.Kind]starlingv1.TrackFixKind{
	row.Final: starlingv1.TrackFixKind_TRACK_FIX_KIND_FINAL, row.Open: starlingv1.TrackFixKind_TRACK_FIX_KIND_OPEN,
	row.Late: starlingv1.TrackFixKind_TRACK_FIX_KIND_LATE, row.SetAside: starlingv1.TrackFixKind_TRACK_FIX_KIND_SET_ASIDE,
}

// message fills in the n-th message of the arena.
func (m *arena) message(n int, f *row.Fix, l layers) *starlingv1.TrackFix {
	out := &m.fixes[n]
	at := &m.times[n]
	at.Seconds, at.Nanos = f.DeviceTimeMS/1000, int32(f.DeviceTimeMS%1000*1e6)
	out.DeviceTime, out.Kind, out.Verdict = at, kinds[f.Kind], f.Verdict
	if l.raw {
		out.Raw = m.reported(f)
	}
	if f.Has&row.HasEstimate == 0 {
		return out
	}
	if l.corrected {
		c := grow(&m.corrected)
		c.Place = m.place(f.Corrected)
		c.SpeedMps, c.HeadingDeg = m.number(f, row.HasSpeed, f.SpeedCMPS, 100), m.number(f, row.HasHeading, f.HeadingDDeg, 10)
		out.Corrected = c
	}
	if l.display {
		out.Display = m.place(f.Display)
	}
	return out
}

func (m *arena) reported(f *row.Fix) *starlingv1.ReportedPosition {
	r := grow(&m.raw)
	r.Place = m.place(f.Raw)
	r.SpeedMps, r.HeadingDeg = m.number(f, row.HasRawSpeed, f.RawSpeedCMPS, 100), m.number(f, row.HasRawHeading, f.RawHeadingDDeg, 10)
	r.AccuracyM, r.AltitudeM = m.number(f, row.HasAccuracy, f.AccuracyDM, 10), m.number(f, row.HasAltitude, f.AltitudeDM, 10)
	if f.Has&row.HasMocked != 0 {
		mocked := f.Mocked
		r.Mocked = &mocked
	}
	return r
}

func (m *arena) place(p row.Position) *starlingv1.Place {
	out := grow(&m.places)
	out.Latitude, out.Longitude = float64(p.LatE7)/1e7, float64(p.LonE7)/1e7
	return out
}

// number is an optional value of a fix, or nil.
func (m *arena) number(f *row.Fix, bit row.Has, v int32, perUnit float64) *float64 {
	if f.Has&bit == 0 {
		return nil
	}
	out := grow(&m.numbers)
	*out = float64(v) / perUnit
	return out
}

// grow returns a new element, which stays where it is: a full block is left to those
// that point into it, and another is begun.
func grow[T any](block *[]T) *T {
	if len(*block) == cap(*block) {
		*block = make([]T, 0, partFixes)
	}
	*block = (*block)[:len(*block)+1]
	return &(*block)[len(*block)-1]
}
