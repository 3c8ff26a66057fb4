package query

import (
	"context"
	"math"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/h3"
)

// impreciseResolution is that of the cells whose centres stand for positions before
// callers without the scope history:precise, and of the finest that they may name.
const impreciseResolution = 8

// view is how precisely a caller sees positions.
type view struct {
	precise bool
	// The cell that was met last, and its centre: a vehicle is often in the same.
	cell   h3.Cell
	centre row.Position
}

func sight(ctx context.Context) *view {
	return &view{precise: auth.CallerOf(ctx).Has(auth.HistoryPrecise)}
}

// fix leaves of a fix what the caller may see.
func (v *view) fix(f *row.Fix) (err error) {
	if v.precise {
		return nil
	}
	f.Has &^= row.HasRawHeading | row.HasHeading | row.HasAltitude
	f.RawHeadingDDeg, f.HeadingDDeg, f.AltitudeDM = 0, 0, 0
	if f.Raw, err = v.position(f.Raw); err != nil || f.Has&row.HasEstimate == 0 {
		return err
	}
	if f.Corrected, err = v.position(f.Corrected); err != nil {
		return err
	}
	f.Display, err = v.position(f.Display)
	return err
}

func (v *view) position(p row.Position) (row.Position, error) {
	cell, err := h3.At(float64(p.LatE7)/1e7, float64(p.LonE7)/1e7, impreciseResolution)
	if err != nil || cell == v.cell {
		return v.centre, err
	}
	latDeg, lonDeg, err := cell.Centre()
	if err != nil {
		return row.Position{}, err
	}
	v.cell, v.centre = cell, row.Position{LatE7: int32(math.Round(latDeg * 1e7)), LonE7: int32(math.Round(lonDeg * 1e7))}
	return v.centre, nil
}

// period returns the refusal of a caller that may not count so finely, or nil.
func (v *view) period(p store.Period) *refusal {
	if v.precise || p.Resolution() <= impreciseResolution {
		return nil
	}
	r := imprecise("period", "statistics are by hour")
	return &r
}

// area returns the refusal of a caller that may not name so small a place, or nil:
// by asking for small ones often enough it would see exactly where a vehicle was.
func (v *view) area(a store.Area) *refusal {
	if v.precise {
		return nil
	}
	if len(a.Polygon) > 0 {
		r := imprecise("polygon", "an area is named by cells")
		return &r
	}
	for _, c := range a.Cells {
		if c.Resolution() > impreciseResolution {
			r := imprecise("h3_cells", "cells have a resolution of at most 8")
			return &r
		}
	}
	return nil
}
