package matcher

import (
	"context"
	"encoding/base64"
	"strings"

	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/matcher/supply"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Bounds of requests for counts; the .proto files state them.
const (
	maxWithinCells   = 1000
	countPageVersion = "2:"
)

// selection is a CellSelection in the form that the tree reads.
type selection struct {
	resolution int
	within     supply.Area
	choice     supply.Choice
}

// CountVehicles implements starlingv1.FleetServiceServer. Each page is read by
// itself, as of one moment.
func (m *Matcher) CountVehicles(_ context.Context, req *starlingv1.CountVehiclesRequest) (*starlingv1.CountVehiclesResponse, error) {
	if err := m.serving(); err != nil {
		return nil, err
	}
	var f faults
	s, size, after := f.selection(req.GetSelection(), m.supply.Finest()), f.pageSize(req.GetPageSize()), f.countsAfter(req.GetPageToken())
	if err := f.err(); err != nil {
		return nil, err
	}
	page, next := m.supply.Page(s.resolution, after, s.within, s.choice, size, nil)
	out := &starlingv1.CountVehiclesResponse{Cells: cellMessages(page), StalePartitions: m.staleMessages(m.now().UnixMilli())}
	if next != 0 {
		out.NextPageToken = CountPageToken(next.String())
	}
	return out, nil
}

func (f *faults) selection(in *starlingv1.CellSelection, finest int) selection {
	s := selection{
		resolution: int(in.GetResolution()),
		choice:     supply.Choice{Availabilities: in.GetAvailabilities(), Dispatchable: in.GetDispatchable()},
	}
	if s.resolution < 0 || s.resolution > finest {
		f.add("selection.resolution", "is %d, must be between 0 and %d", s.resolution, finest)
	}
	for _, a := range s.choice.Availabilities {
		f.availability("selection.availabilities", a)
	}
	const field = "selection.within_h3_cells"
	if n := len(in.GetWithinH3Cells()); n > maxWithinCells {
		f.add(field, "are %d, must be at most %d", n, maxWithinCells)
		return s
	}
	var cells []h3.Cell
	for _, text := range in.GetWithinH3Cells() {
		cell, err := h3.Parse(text)
		switch {
		case err != nil:
			f.add(field, "%v", err)
			return s
		case cell.Resolution() > s.resolution:
			f.add(field, "%s has resolution %d, which is finer than %d", text, cell.Resolution(), s.resolution)
			return s
		}
		cells = append(cells, cell)
	}
	s.within = supply.NewArea(cells)
	return s
}

// CountPageToken is the token of the page of CountVehicles that starts behind a
// cell in hexadecimal form.
func CountPageToken(after string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(countPageVersion + after))
}

// CountPageStart is the cell that CountPageToken was given.
func CountPageStart(token string) (after string, ok bool) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	after, ok = strings.CutPrefix(string(raw), countPageVersion)
	_, invalid := h3.Parse(after)
	return after, ok && err == nil && invalid == nil
}

// countsAfter reads a page token: the cell after which the page starts.
func (f *faults) countsAfter(token string) h3.Cell {
	if token == "" {
		return 0
	}
	text, ok := CountPageStart(token)
	if !ok {
		f.add("page_token", "is not a token that CountVehicles returned")
		return 0
	}
	after, _ := h3.Parse(text) // as CountPageStart has made sure
	return after
}

func cellMessages(cells []supply.Cell) []*starlingv1.CellCount {
	messages, out := make([]starlingv1.CellCount, len(cells)), make([]*starlingv1.CellCount, len(cells))
	for i := range cells {
		c, to := &cells[i].Counts, &messages[i]
		to.H3Cell, to.TotalCount = cells[i].Cell.String(), c.Total()
		to.FreeCount, to.ReservedCount = c.By[starlingv1.Availability_AVAILABILITY_FREE], c.By[starlingv1.Availability_AVAILABILITY_RESERVED]
		to.OnRideCount, to.OfflineCount = c.By[starlingv1.Availability_AVAILABILITY_ON_RIDE], c.By[starlingv1.Availability_AVAILABILITY_OFFLINE]
		to.BusyCount, to.UnstatedCount = c.By[starlingv1.Availability_AVAILABILITY_BUSY], c.By[starlingv1.Availability_AVAILABILITY_UNSPECIFIED]
		to.DispatchableCount = c.Dispatchable
		out[i] = to
	}
	return out
}
