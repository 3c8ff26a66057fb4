package query

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

// Selection is a CellSelection in the form that the tree reads.
type Selection struct {
	Resolution int
	Within     supply.Area
	Choice     supply.Choice
}

// CountVehicles implements starlingv1.FleetServiceServer. Each page is read by
// itself, as of one moment.
func (s *Searcher) CountVehicles(_ context.Context, req *starlingv1.CountVehiclesRequest) (*starlingv1.CountVehiclesResponse, error) {
	if err := Serving(s.follower); err != nil {
		return nil, err
	}
	var f Faults
	sel, size, after := f.Selection(req.GetSelection(), s.supply.Finest()), f.Size("page_size", req.GetPageSize(), defaultPageSize, maxPageSize), f.countsAfter(req.GetPageToken())
	if err := f.Err(); err != nil {
		return nil, err
	}
	page, next := s.supply.Page(sel.Resolution, after, sel.Within, sel.Choice, size, nil)
	out := &starlingv1.CountVehiclesResponse{Cells: CellMessages(page), StalePartitions: StaleMessages(s.follower, s.now().UnixMilli())}
	if next != 0 {
		out.NextPageToken = CountPageToken(next.String())
	}
	return out, nil
}

// Selection turns a selection into the tree's form; finest is the finest
// resolution that is counted.
func (f *Faults) Selection(in *starlingv1.CellSelection, finest int) Selection {
	s := Selection{
		Resolution: int(in.GetResolution()),
		Choice:     supply.Choice{Availabilities: in.GetAvailabilities(), Dispatchable: in.GetDispatchable()},
	}
	f.Need(s.Resolution >= 0 && s.Resolution <= finest, "selection.resolution", s.Resolution, "between 0 and %d", finest)
	for _, a := range s.Choice.Availabilities {
		f.availability("selection.availabilities", a)
	}
	const field = "selection.within_h3_cells"
	if !f.Count(field, len(in.GetWithinH3Cells()), 0, maxWithinCells) {
		return s
	}
	var cells []h3.Cell
	for _, text := range in.GetWithinH3Cells() {
		cell, err := h3.Parse(text)
		switch {
		case err != nil:
			f.Add(field, "%v", err)
			return s
		case cell.Resolution() > s.Resolution:
			f.Need(false, field, text, "of resolution %d or coarser, not %d", s.Resolution, cell.Resolution())
			return s
		}
		cells = append(cells, cell)
	}
	s.Within = supply.NewArea(cells)
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
func (f *Faults) countsAfter(token string) h3.Cell {
	if token == "" {
		return 0
	}
	text, ok := CountPageStart(token)
	if !ok {
		f.Need(false, "page_token", token, "a token that CountVehicles returned")
		return 0
	}
	after, _ := h3.Parse(text) // as CountPageStart has made sure
	return after
}

// CellMessages returns the messages of cells with their counts.
func CellMessages(cells []supply.Cell) []*starlingv1.CellCount {
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
