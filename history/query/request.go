package query

import (
	"math"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Bounds of requests; history_service.proto states them.
const (
	maxVertices                = 1000
	maxCells                   = 1000
	maxInterval                = 24 * time.Hour
	minTolerance, maxTolerance = 0.1, 100_000
	earliestYear, latestYear   = 1970, 2100
)

// timeRange returns the range of a request in milliseconds since the Unix epoch.
func (f *faults) timeRange(start, end *timestamppb.Timestamp, longest time.Duration) (fromMS, toMS int64) {
	before := len(f.Violations)
	fromMS, toMS = f.time("start_time", start), f.time("end_time", end)
	if len(f.Violations) > before {
		return 0, 0
	}
	f.Need(fromMS < toMS, "end_time", end.AsTime().Format(time.RFC3339Nano), "after start_time, which is %s", start.AsTime().Format(time.RFC3339Nano))
	f.Need(toMS-fromMS <= longest.Milliseconds(), "end_time", end.AsTime().Format(time.RFC3339Nano), "at most %s after start_time", longest)
	return fromMS, toMS
}

func (f *faults) time(field string, at *timestamppb.Timestamp) int64 {
	if at == nil {
		f.Require(false, field, "a time")
		return 0
	}
	t := at.AsTime()
	ok := at.CheckValid() == nil && at.GetNanos()%1e6 == 0 && t.Year() >= earliestYear && t.Year() < latestYear
	f.Need(ok, field, t.Format(time.RFC3339Nano), "a time of the years %d to %d in whole milliseconds", earliestYear, latestYear-1)
	return t.UnixMilli()
}

// layers are what is sent of each fix; the first is the one that thinning goes by.
func (f *faults) layers(asked []starlingv1.TrackLayer) layers {
	if len(asked) == 0 {
		asked = []starlingv1.TrackLayer{starlingv1.TrackLayer_TRACK_LAYER_CORRECTED}
	}
	if !f.Count("layers", len(asked), 0, len(starlingv1.TrackLayer_name)-1) {
		return layers{}
	}
	out := layers{first: asked[0]}
	for i, l := range asked {
		field := "layers[" + strconv.Itoa(i) + "]"
		f.Need(!slices.Contains(asked[:i], l), field, l.String(), "there once")
		switch l {
		case starlingv1.TrackLayer_TRACK_LAYER_RAW:
			out.raw = true
		case starlingv1.TrackLayer_TRACK_LAYER_CORRECTED:
			out.corrected = true
		case starlingv1.TrackLayer_TRACK_LAYER_DISPLAY:
			out.display = true
		default:
			f.Need(false, field, int32(l), "one of the layers")
		}
	}
	return out
}

// thinning returns the least interval in milliseconds or the tolerance in metres;
// both are 0 when no fix is left out.
func (f *faults) thinning(req *starlingv1.GetTrackRequest) (intervalMS int64, toleranceM float64) {
	switch by := req.GetThinning().(type) {
	case *starlingv1.GetTrackRequest_MinInterval:
		d := by.MinInterval.AsDuration()
		f.Need(by.MinInterval.CheckValid() == nil && d >= time.Millisecond && d <= maxInterval && d%time.Millisecond == 0, "min_interval", d, "whole milliseconds between 1ms and %s", maxInterval)
		intervalMS = d.Milliseconds()
	case *starlingv1.GetTrackRequest_ToleranceM:
		toleranceM = by.ToleranceM
		f.Need(toleranceM >= minTolerance && toleranceM <= maxTolerance, "tolerance_m", toleranceM, "between %v and %d", minTolerance, maxTolerance)
	}
	return intervalMS, toleranceM
}

func (f *faults) period(p starlingv1.StatsPeriod) store.Period {
	switch p {
	case starlingv1.StatsPeriod_STATS_PERIOD_HOUR:
		return store.Hour
	case starlingv1.StatsPeriod_STATS_PERIOD_MINUTE:
		return store.Minute
	}
	f.Need(false, "period", int32(p), "one of the periods")
	return store.Hour
}

// cells parses cells that are no finer than a resolution.
func (f *faults) cells(field string, texts []string, finest int) []h3.Cell {
	if !f.Count(field, len(texts), 0, maxCells) {
		return nil
	}
	cells := make([]h3.Cell, len(texts))
	for i, text := range texts {
		c, err := h3.Parse(text)
		if f.Need(err == nil, field+"["+strconv.Itoa(i)+"]", text, "an H3 cell"); err != nil {
			continue
		}
		f.Need(c.Resolution() <= finest, field+"["+strconv.Itoa(i)+"]", text, "of a resolution of at most %d", finest)
		cells[i] = c
	}
	return cells
}

// area returns where a request asks for visits.
func (f *faults) area(req *starlingv1.FindVisitsRequest) store.Area {
	polygon := req.GetPolygon()
	if (polygon != nil) == (len(req.GetH3Cells()) > 0) {
		f.Require(false, "h3_cells", "cells, or a polygon, not both")
		return store.Area{}
	}
	if polygon == nil {
		return store.Area{Cells: f.cells("h3_cells", req.GetH3Cells(), h3.MaxResolution)}
	}
	vertices := polygon.GetVertices()
	if !f.Count("polygon.vertices", len(vertices), 3, maxVertices) {
		return store.Area{}
	}
	corners := make([]row.Position, len(vertices))
	for i, v := range vertices {
		before, field := len(f.Violations), "polygon.vertices["+strconv.Itoa(i)+"]"
		if f.Require(v != nil, field, "a position"); v != nil {
			f.Position(field+".", v.GetLatitude(), v.GetLongitude())
		}
		if len(f.Violations) == before {
			corners[i] = row.Position{LatE7: int32(math.Round(v.GetLatitude() * 1e7)), LonE7: int32(math.Round(v.GetLongitude() * 1e7))}
		}
	}
	return store.Area{Polygon: corners}
}
