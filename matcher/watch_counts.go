package matcher

import (
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/matcher/feed"
	"github.com/starling-fleet/starling/matcher/supply"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// cellsPerPart bounds the cells in one message and in one look at the tree,
// which the writer waits for.
const cellsPerPart = 10_000

// countFeeds notify calls that watch counts which cells changed, by resolution.
type countFeeds struct {
	max          int64
	open         atomic.Int64
	byResolution [supply.MaxResolution + 1]struct {
		open atomic.Int64
		feed *feed.Feed[h3.Cell]
	}
}

func newCountFeeds(limit int, now func() time.Time) *countFeeds {
	f := &countFeeds{max: int64(limit)}
	for i := range f.byResolution {
		f.byResolution[i].feed = feed.New[h3.Cell](now)
	}
	return f
}

// changed writes down that a cell's counts are others now, if anybody watches
// that resolution.
func (f *countFeeds) changed(resolution int, cell h3.Cell) {
	if one := &f.byResolution[resolution]; one.open.Load() > 0 {
		one.feed.Add(cell)
	}
}

func (f *countFeeds) wakeAll() {
	for i := range f.byResolution {
		f.byResolution[i].feed.PokeAll()
	}
}

// WatchVehicleCounts implements starlingv1.FleetServiceServer.
func (m *Matcher) WatchVehicleCounts(req *starlingv1.WatchVehicleCountsRequest, stream grpc.ServerStreamingServer[starlingv1.WatchVehicleCountsResponse]) error {
	if err := m.serving(); err != nil {
		return err
	}
	var f faults
	w := countWatch{m: m, stream: stream, Waiter: feed.NewWaiter(), held: map[h3.Cell]supply.Counts{}}
	w.selection = f.selection(req.GetSelection(), m.supply.Finest())
	interval := f.interval(req.GetMinInterval())
	if err := f.err(); err != nil {
		return err
	}
	defer m.counts.open.Add(-1)
	if m.counts.open.Add(1) > m.counts.max {
		return statusError(codes.ResourceExhausted, reasonTooManyWatchers, "too many watch calls are open", retryInfo())
	}
	source := &m.counts.byResolution[w.resolution]
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
	p := pace{m: m, ctx: stream.Context(), interval: interval, wait: w.wait, wake: w.Wake, update: w.update}
	return p.follow()
}

// countWatch is one WatchVehicleCounts call at work.
type countWatch struct {
	feed.Waiter
	selection
	m      *Matcher
	stream grpc.ServerStreamingServer[starlingv1.WatchVehicleCountsResponse]
	feed   *feed.Feed[h3.Cell]
	next   uint64                    // number of the next change to read
	held   map[h3.Cell]supply.Counts // as sent last
	stale  []int32                   // as sent last
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
		if !w.within.Holds(cell) {
			continue
		}
		changed = w.note(cell, w.choice.Of(w.m.supply.At(cell)), changed)
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
		page, after = w.m.supply.Page(w.resolution, after, w.within, w.choice, cellsPerPart, nil)
		for _, c := range page {
			delete(gone, c.Cell)
			changed = w.note(c.Cell, c.Counts, changed)
		}
		if len(w.held) > w.m.cfg.MaxAreaVehicles {
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
	if len(w.held) > w.m.cfg.MaxAreaVehicles {
		return false, statusError(codes.ResourceExhausted, reasonAreaTooLarge, "more cells have vehicles than one call may watch; watch fewer, or coarser ones")
	}
	stale := w.m.staleMessages(w.m.now().UnixMilli())
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
		part := &starlingv1.WatchVehicleCountsResponse{Snapshot: snapshot, Cells: cellMessages(cells[:n]), More: n < len(cells)}
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
