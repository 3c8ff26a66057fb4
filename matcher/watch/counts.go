package watch

import (
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/matcher/feed"
	"github.com/starling-fleet/starling/matcher/query"
	"github.com/starling-fleet/starling/matcher/supply"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// cellsPerPart bounds the cells in one message and in one look at the tree,
// which the writer waits for.
const cellsPerPart = 10_000

// WatchVehicleCounts implements starlingv1.FleetServiceServer.
func (s *Watcher) WatchVehicleCounts(req *starlingv1.WatchVehicleCountsRequest, stream grpc.ServerStreamingServer[starlingv1.WatchVehicleCountsResponse]) error {
	if err := query.Serving(s.follower); err != nil {
		return err
	}
	var f query.Faults
	w := countWatch{watcher: s, stream: stream, Waiter: feed.NewWaiter(), held: map[h3.Cell]supply.Counts{}}
	w.Selection = f.Selection(req.GetSelection(), s.supply.Finest())
	interval := readInterval(&f, req.GetMinInterval())
	if err := f.Err(); err != nil {
		return err
	}
	defer s.feeds.counts.open.Add(-1)
	if s.feeds.counts.open.Add(1) > s.feeds.counts.max {
		return query.Error(codes.ResourceExhausted, query.ReasonTooManyWatchers, "too many watch calls are open", query.RetryInfo())
	}
	source := &s.feeds.counts.byResolution[w.Resolution]
	source.open.Add(1)
	defer source.open.Add(-1)
	w.feed = source.feed
	w.next = w.feed.Join(&w.Waiter)
	defer w.feed.Leave(&w.Waiter)
	// The feed is read from here on, so whatever the first look misses comes
	// with the next.
	if _, err := w.send(w.recount(), true); err != nil {
		return err
	}
	p := pace{watcher: s, ctx: stream.Context(), interval: interval, wait: w.wait, wake: w.Wake, update: w.update}
	return p.follow()
}

// countWatch is one WatchVehicleCounts call at work.
type countWatch struct {
	feed.Waiter
	query.Selection
	watcher *Watcher
	stream  grpc.ServerStreamingServer[starlingv1.WatchVehicleCountsResponse]
	feed    *feed.Feed[h3.Cell]
	next    uint64                    // number of the next change to read
	held    map[h3.Cell]supply.Counts // as sent last
	stale   []int32                   // as sent last
}

func (w *countWatch) wait() bool {
	return w.Arm(func() bool { return w.feed.Changed(w.next) })
}

// update sends the counts that differ from those sent.
func (w *countWatch) update() (sent bool, err error) {
	w.Looked()
	cells, all := w.feed.Since(&w.next, nil)
	if !all {
		return w.send(w.recount(), false)
	}
	slices.Sort(cells)
	var changed []supply.Cell
	for _, cell := range slices.Compact(cells) {
		if !w.Within.Holds(cell) {
			continue
		}
		changed = w.note(cell, w.Choice.Of(w.watcher.supply.At(cell)), changed)
	}
	return w.send(changed, false)
}

// recount looks at all cells and returns those whose counts have changed.
func (w *countWatch) recount() (changed []supply.Cell) {
	gone := make(map[h3.Cell]struct{}, len(w.held))
	for cell := range w.held {
		gone[cell] = struct{}{}
	}
	for after, more := h3.Cell(0), true; more; more = after != 0 {
		var page []supply.Cell
		page, after = w.watcher.supply.Page(w.Resolution, after, w.Within, w.Choice, cellsPerPart, nil)
		for _, c := range page {
			delete(gone, c.Cell)
			changed = w.note(c.Cell, c.Counts, changed)
		}
		if len(w.held) > w.watcher.cfg.MaxAreaVehicles {
			break // which send refuses
		}
	}
	for cell := range gone {
		changed = w.note(cell, supply.Counts{}, changed)
	}
	slices.SortFunc(changed, func(a, b supply.Cell) int {
		if a.Cell < b.Cell {
			return -1
		}
		return 1
	})
	return changed
}

// note remembers a cell's counts and appends them if they changed.
func (w *countWatch) note(cell h3.Cell, counts supply.Counts, to []supply.Cell) []supply.Cell {
	if w.held[cell] == counts {
		return to
	}
	if w.held[cell] = counts; counts.Total() == 0 {
		delete(w.held, cell)
	}
	return append(to, supply.Cell{Cell: cell, Counts: counts})
}

// send sends an update in as many parts as it needs, if there is one.
func (w *countWatch) send(cells []supply.Cell, snapshot bool) (sent bool, err error) {
	if len(w.held) > w.watcher.cfg.MaxAreaVehicles {
		return false, query.Error(codes.ResourceExhausted, query.ReasonAreaTooLarge, "more cells have vehicles than one call may watch; watch fewer, or coarser ones")
	}
	stale := query.StaleMessages(w.watcher.follower, w.watcher.now().UnixMilli())
	var numbers []int32
	for _, s := range stale {
		numbers = append(numbers, s.Partition)
	}
	if !snapshot && len(cells) == 0 && slices.Equal(numbers, w.stale) {
		return false, nil
	}
	w.stale = numbers
	for {
		n := min(len(cells), cellsPerPart)
		part := &starlingv1.WatchVehicleCountsResponse{Snapshot: snapshot, Cells: query.CellMessages(cells[:n]), More: n < len(cells)}
		if cells = cells[n:]; !part.More {
			part.StalePartitions = stale
		}
		if err := w.stream.Send(part); err != nil {
			return false, err
		}
		if !part.More {
			return true, nil
		}
	}
}
