package query

import (
	"strconv"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Bounds of areas; fleet.proto states them.
const (
	maxVertices        = 1000
	maxCells           = 10_000
	maxAreaResults     = 10_000
	defaultAreaResults = 1000
)

// Area turns an area into the index's form. It returns nil when it has added a
// fault, and also when the area is absent and not required.
func (f *Faults) Area(field string, in *starlingv1.Area, required bool) *liveindex.Area {
	if in == nil && !required {
		return nil
	}
	before := len(f.Violations)
	switch shape := in.GetShape().(type) {
	case *starlingv1.Area_Viewport:
		return f.viewport(field+".viewport", shape.Viewport)
	case *starlingv1.Area_Polygon:
		return f.polygon(field+".polygon", shape.Polygon)
	case *starlingv1.Area_Cells:
		return f.cells(field+".cells", shape.Cells)
	}
	if len(f.Violations) == before {
		f.Require(false, field, "a viewport, a polygon or cells")
	}
	return nil
}

func (f *Faults) viewport(field string, in *starlingv1.Viewport) *liveindex.Area {
	before := len(f.Violations)
	south, west := f.position(field+".southwest", in.GetSouthwest())
	north, east := f.position(field+".northeast", in.GetNortheast())
	if len(f.Violations) > before {
		return nil
	}
	area, err := liveindex.NewViewport(south, west, north, east)
	if err != nil {
		f.Add(field, "%v", err)
	}
	return area
}

func (f *Faults) polygon(field string, in *starlingv1.Polygon) *liveindex.Area {
	if !f.Count(field+".vertices", len(in.GetVertices()), 3, maxVertices) {
		return nil
	}
	before := len(f.Violations)
	vertices := make([]geo.Vec, len(in.GetVertices()))
	for i, p := range in.GetVertices() {
		vertices[i] = geo.Unit(f.position(field+".vertices["+strconv.Itoa(i)+"]", p))
	}
	if len(f.Violations) > before {
		return nil
	}
	area, err := liveindex.NewPolygon(vertices)
	if err != nil {
		f.Add(field, "%v", err)
	}
	return area
}

func (f *Faults) cells(field string, in *starlingv1.CellSet) *liveindex.Area {
	field += ".h3_cells"
	if !f.Count(field, len(in.GetH3Cells()), 1, maxCells) {
		return nil
	}
	set := make([]h3.Cell, len(in.GetH3Cells()))
	for i, text := range in.GetH3Cells() {
		var err error
		if set[i], err = h3.Parse(text); err != nil {
			f.Add(field, "%v", err)
			return nil
		}
	}
	area, err := liveindex.NewCells(set)
	if err != nil {
		f.Add(field, "%v", err)
	}
	return area
}
