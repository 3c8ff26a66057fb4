package past

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Thinning is which fixes of a track a server leaves out; the zero value is none.
type Thinning struct {
	MinInterval time.Duration
	ToleranceM  float64
}

// Remote asks a server. Its fixes have what the server sends: not by which record and
// report they came.
type Remote struct {
	client starlingv1.HistoryServiceClient
	// Thinning is that of tracks.
	Thinning Thinning
}

// NewRemote asks a server. The caller closes the connection.
func NewRemote(client starlingv1.HistoryServiceClient) *Remote { return &Remote{client: client} }

// part is a part of an answer.
type part interface {
	GetResumeToken() string
	GetComplete() bool
}

// errEndedEarly is a server that ends an answer that is neither complete nor to be
// gone on with.
var errEndedEarly = errors.New("the server has ended its answer early")

// parts yields the parts of an answer, over as many calls as it takes.
func parts[P any, M interface {
	*P
	part
}](ctx context.Context, call func(ctx context.Context, token string) (grpc.ServerStreamingClient[P], error)) iter.Seq2[M, error] {
	return func(yield func(M, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for token := ""; ; {
			stream, err := call(ctx, token)
			if err != nil {
				yield(nil, cause(ctx, err))
				return
			}
			before, complete := token, false
			for {
				p, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					yield(nil, cause(ctx, err))
					return
				}
				m := M(p)
				if !yield(m, nil) {
					return
				}
				token, complete = m.GetResumeToken(), m.GetComplete()
			}
			switch {
			case complete:
				return
			case token == before:
				yield(nil, errEndedEarly)
				return
			}
		}
	}
}

// cause has the error of a call that its own context has ended be the context's too.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	return err
}

func stamp(ms int64) *timestamppb.Timestamp { return timestamppb.New(time.UnixMilli(ms)) }

// Track is store.Store's.
func (r *Remote) Track(ctx context.Context, q store.TrackQuery) iter.Seq2[row.Fix, error] {
	req := &starlingv1.GetTrackRequest{
		Name: limits.VehicleNamePrefix + q.Vehicle, StartTime: stamp(q.FromMS), EndTime: stamp(q.ToMS),
		Layers: []starlingv1.TrackLayer{starlingv1.TrackLayer_TRACK_LAYER_CORRECTED, starlingv1.TrackLayer_TRACK_LAYER_RAW, starlingv1.TrackLayer_TRACK_LAYER_DISPLAY},
	}
	switch {
	case r.Thinning.MinInterval != 0:
		req.Thinning = &starlingv1.GetTrackRequest_MinInterval{MinInterval: durationpb.New(r.Thinning.MinInterval)}
	case r.Thinning.ToleranceM != 0:
		req.Thinning = &starlingv1.GetTrackRequest_ToleranceM{ToleranceM: r.Thinning.ToleranceM}
	}
	return func(yield func(row.Fix, error) bool) {
		if q.FromMS >= q.ToMS {
			return
		}
		for p, err := range parts(ctx, func(ctx context.Context, token string) (grpc.ServerStreamingClient[starlingv1.GetTrackResponse], error) {
			req.ResumeToken = token
			return r.client.GetTrack(ctx, req)
		}) {
			if err != nil {
				yield(row.Fix{}, err)
				return
			}
			for _, f := range p.Fixes {
				if !yield(fixOf(q.Vehicle, f), nil) {
					return
				}
			}
		}
	}
}

var kinds = map[starlingv1.TrackFixKind]row.Kind{
	starlingv1.TrackFixKind_TRACK_FIX_KIND_FINAL: row.Final, starlingv1.TrackFixKind_TRACK_FIX_KIND_OPEN: row.Open,
	starlingv1.TrackFixKind_TRACK_FIX_KIND_LATE: row.Late, starlingv1.TrackFixKind_TRACK_FIX_KIND_SET_ASIDE: row.SetAside,
}

func fixOf(vehicle string, m *starlingv1.TrackFix) row.Fix {
	f := row.Fix{Vehicle: vehicle, DeviceTimeMS: m.GetDeviceTime().AsTime().UnixMilli(), Kind: kinds[m.GetKind()], Verdict: m.GetVerdict()}
	if raw := m.GetRaw(); raw != nil {
		f.Raw = positionOf(raw.GetPlace())
		take(&f, row.HasRawSpeed, &f.RawSpeedCMPS, raw.SpeedMps, 100)
		take(&f, row.HasRawHeading, &f.RawHeadingDDeg, raw.HeadingDeg, 10)
		take(&f, row.HasAccuracy, &f.AccuracyDM, raw.AccuracyM, 10)
		take(&f, row.HasAltitude, &f.AltitudeDM, raw.AltitudeM, 10)
		if raw.Mocked != nil {
			f.Has |= row.HasMocked
			f.Mocked = raw.GetMocked()
		}
	}
	if c := m.GetCorrected(); c != nil {
		f.Has |= row.HasEstimate
		f.Corrected, f.Display = positionOf(c.GetPlace()), positionOf(m.GetDisplay())
		take(&f, row.HasSpeed, &f.SpeedCMPS, c.SpeedMps, 100)
		take(&f, row.HasHeading, &f.HeadingDDeg, c.HeadingDeg, 10)
	}
	return f
}

// take sets an optional value of a row.
func take(f *row.Fix, bit row.Has, to *int32, v *float64, perUnit float64) {
	if v != nil {
		f.Has |= bit
		*to = int32(math.Round(*v * perUnit))
	}
}

func positionOf(p *starlingv1.Place) row.Position {
	return row.Position{LatE7: int32(math.Round(p.GetLatitude() * 1e7)), LonE7: int32(math.Round(p.GetLongitude() * 1e7))}
}

func placeOf(p row.Position) *starlingv1.Place {
	return &starlingv1.Place{Latitude: float64(p.LatE7) / 1e7, Longitude: float64(p.LonE7) / 1e7}
}

func texts(cells []h3.Cell) (out []string) {
	for _, c := range cells {
		out = append(out, c.String())
	}
	return out
}

// CellStats is store.Store's.
func (r *Remote) CellStats(ctx context.Context, q store.CellQuery) iter.Seq2[store.CellStat, error] {
	req := &starlingv1.GetCellStatsRequest{Period: starlingv1.StatsPeriod_STATS_PERIOD_HOUR, StartTime: stamp(q.FromMS), EndTime: stamp(q.ToMS), WithinH3Cells: texts(q.Cells)}
	if q.Period == store.Minute {
		req.Period = starlingv1.StatsPeriod_STATS_PERIOD_MINUTE
	}
	return func(yield func(store.CellStat, error) bool) {
		if q.FromMS >= q.ToMS {
			return
		}
		for p, err := range parts(ctx, func(ctx context.Context, token string) (grpc.ServerStreamingClient[starlingv1.GetCellStatsResponse], error) {
			req.ResumeToken = token
			return r.client.GetCellStats(ctx, req)
		}) {
			if err != nil {
				yield(store.CellStat{}, err)
				return
			}
			for _, c := range p.Cells {
				stat, err := statOf(c)
				if !yield(stat, err) || err != nil {
					return
				}
			}
		}
	}
}

func statOf(m *starlingv1.CellStats) (store.CellStat, error) {
	cell, err := h3.Parse(m.GetH3Cell())
	if err != nil {
		return store.CellStat{}, fmt.Errorf("the server's answer: %w", err)
	}
	cm := func(mps float64) int32 { return int32(math.Round(mps * 100)) }
	return store.CellStat{
		Cell: cell, StartMS: m.GetStartTime().AsTime().UnixMilli(), Fixes: m.GetFixCount(), Vehicles: m.GetVehicleCount(), Speeds: m.GetSpeedCount(),
		MeanSpeedCMPS: m.GetMeanSpeedMps() * 100, P50: cm(m.GetP50SpeedMps()), P85: cm(m.GetP85SpeedMps()), P95: cm(m.GetP95SpeedMps()),
	}, nil
}

// Visits is store.Store's.
func (r *Remote) Visits(ctx context.Context, q store.VisitQuery) iter.Seq2[store.Visit, error] {
	req := &starlingv1.FindVisitsRequest{StartTime: stamp(q.FromMS), EndTime: stamp(q.ToMS), H3Cells: texts(q.Area.Cells)}
	if len(q.Area.Polygon) > 0 {
		req.Polygon = &starlingv1.MapPolygon{}
		for _, p := range q.Area.Polygon {
			req.Polygon.Vertices = append(req.Polygon.Vertices, placeOf(p))
		}
	}
	return func(yield func(store.Visit, error) bool) {
		if q.FromMS >= q.ToMS {
			return
		}
		for p, err := range parts(ctx, func(ctx context.Context, token string) (grpc.ServerStreamingClient[starlingv1.FindVisitsResponse], error) {
			req.ResumeToken = token
			return r.client.FindVisits(ctx, req)
		}) {
			if err != nil {
				yield(store.Visit{}, err)
				return
			}
			for _, v := range p.Visits {
				visit := store.Visit{
					Vehicle: strings.TrimPrefix(v.GetName(), limits.VehicleNamePrefix), Fixes: v.GetFixCount(),
					FirstMS: v.GetFirstTime().AsTime().UnixMilli(), LastMS: v.GetLastTime().AsTime().UnixMilli(),
				}
				if visit.Vehicle > q.After && !yield(visit, nil) {
					return
				}
			}
		}
	}
}
