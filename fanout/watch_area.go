package fanout

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// defaultInterval and maxLeftPerPart are as matchers have them.
const (
	defaultInterval = time.Second
	maxLeftPerPart  = 10_000
)

// WatchArea implements starlingv1.FleetServiceServer: it watches at all regions,
// merges what they send, and sends it on, not sooner after another update than
// the client chose. A change that has waited for its matcher's interval may thus
// wait once more. A call never resumes: it begins with a snapshot, as fleet.proto
// allows.
func (f *Fanout) WatchArea(req *starlingv1.WatchAreaRequest, stream grpc.ServerStreamingServer[starlingv1.WatchAreaResponse]) error {
	end, err := f.beginWatch()
	if err != nil {
		return err
	}
	defer end()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	request := &starlingv1.WatchAreaRequest{Area: req.GetArea(), Filter: req.GetFilter(), MinInterval: req.GetMinInterval()}
	messages, failures := watchAll(ctx, f, func(ctx context.Context, c starlingv1.FleetServiceClient) (grpc.ServerStreamingClient[starlingv1.WatchAreaResponse], error) {
		return c.WatchArea(ctx, request)
	})
	interval := defaultInterval
	if req.GetMinInterval() != nil {
		interval = req.GetMinInterval().AsDuration() // what breaks a rule, the matchers refuse
	}
	m := newAreaMerge(len(f.groups))
	pause := time.NewTimer(0)
	defer pause.Stop()
	<-pause.C
	paused := false
	for {
		select {
		case <-f.stopped:
			return hasStopped()
		case err := <-failures:
			return failed(stream.Context(), err)
		case h := <-messages:
			m.take(h.number, h.body)
		case <-pause.C:
			paused = false
		}
		if paused || !m.whole() {
			continue
		}
		sent, err := m.send(stream.Send)
		if err != nil {
			return err
		}
		if sent {
			pause.Reset(interval)
			paused = true
		}
	}
}

// areaMerge is the state of a WatchArea call: what each matcher has sent, and
// what the client has been.
type areaMerge struct {
	views  []map[string]*starlingv1.Vehicle // by region and name
	parts  []bool                           // by region: in the middle of an update
	began  []bool                           // by region: the snapshot is complete
	stale  [][]*starlingv1.StalePartition
	dirty  map[string]struct{}
	sent   map[string]*starlingv1.Vehicle
	named  []int32 // stale partitions, as sent last
	opened bool    // the snapshot was sent
}

func newAreaMerge(regions int) *areaMerge {
	m := &areaMerge{
		views: make([]map[string]*starlingv1.Vehicle, regions), parts: make([]bool, regions), began: make([]bool, regions),
		stale: make([][]*starlingv1.StalePartition, regions),
		dirty: map[string]struct{}{}, sent: map[string]*starlingv1.Vehicle{},
	}
	for i := range m.views {
		m.views[i] = map[string]*starlingv1.Vehicle{}
	}
	return m
}

// take takes in a part of a matcher's update.
func (m *areaMerge) take(number int, r *starlingv1.WatchAreaResponse) {
	views := m.views[number]
	if r.GetSnapshot() && !m.parts[number] {
		for name := range views {
			m.dirty[name] = struct{}{}
		}
		clear(views)
	}
	for _, v := range r.GetChanged() {
		views[v.GetName()] = v
		m.dirty[v.GetName()] = struct{}{}
	}
	for _, name := range r.GetLeft() {
		delete(views, name)
		m.dirty[name] = struct{}{}
	}
	if m.parts[number] = r.GetMore(); !r.GetMore() {
		m.stale[number], m.began[number] = r.GetStalePartitions(), true
	}
}

// whole reports whether every matcher has sent a whole state.
func (m *areaMerge) whole() bool {
	return !slices.Contains(m.began, false) && !slices.Contains(m.parts, true)
}

// newest is the newest view received of a vehicle, nil if nobody has it inside.
func (m *areaMerge) newest(name string) (out *starlingv1.Vehicle) {
	for _, views := range m.views {
		if v := views[name]; v != nil && (out == nil || newer(v, out)) {
			out = v
		}
	}
	return out
}

// send sends an update, in as many parts as it needs, if there is one.
func (m *areaMerge) send(send func(*starlingv1.WatchAreaResponse) error) (sent bool, err error) {
	var stale staleness
	for _, partitions := range m.stale {
		stale.add(partitions)
	}
	list := stale.list()
	var named []int32
	for _, s := range list {
		named = append(named, s.GetPartition())
	}
	changed, left := m.changes()
	if m.opened && len(changed) == 0 && len(left) == 0 && slices.Equal(named, m.named) {
		return false, nil
	}
	snapshot := !m.opened
	m.named, m.opened = named, true
	for more := true; more; {
		part := &starlingv1.WatchAreaResponse{Snapshot: snapshot}
		part.Changed, _ = truncate(changed, "", maxResults*10, vehicleKey, vehicleSize)
		if changed = changed[len(part.Changed):]; len(changed) == 0 {
			n := min(len(left), maxLeftPerPart)
			part.Left, left = left[:n], left[n:]
		}
		if more = len(changed) > 0 || len(left) > 0; !more {
			part.StalePartitions = list
		}
		part.More = more
		if err := send(part); err != nil {
			return true, err
		}
	}
	return true, nil
}

// changes is how what the client knows differs from what has been received. An older
// view does not replace the one sent: its matcher is about to send what became of
// the vehicle.
func (m *areaMerge) changes() (changed []*starlingv1.Vehicle, left []string) {
	for name := range m.dirty {
		now, before := m.newest(name), m.sent[name]
		switch {
		case now == nil && before != nil:
			left = append(left, name)
			delete(m.sent, name)
		case now != nil && (before == nil || !newer(before, now) && !sameVehicle(before, now)):
			changed = append(changed, now)
			m.sent[name] = now
		}
	}
	clear(m.dirty)
	slices.Sort(left)
	slices.SortFunc(changed, func(a, b *starlingv1.Vehicle) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return changed, left
}
