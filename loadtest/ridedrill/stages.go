package ridedrill

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/latency"
	"github.com/starling-fleet/starling/loadtest/drill/drillog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// Stage is one part of the way from a request to its assignment.
type Stage struct {
	Name    string          `json:"name"`
	Latency latency.Summary `json:"latency"`
}

// stageNames are the parts in their order; the log's stamps are where they meet.
var stageNames = [...]string{
	"the call, until its order is in the log",
	"until REQUESTED is in the log",
	"until the proposal is in the log",
	"until the tracker has published its grant",
	"until ASSIGNED is in the log",
	"until the rider has heard of it",
}

// passed are the times of one ride in milliseconds of the Unix epoch, from its call
// to what the rider hears: one more than there are stages. 0 is unknown.
type passed [len(stageNames) + 1]int64

// stages reads from the log, when the last process has stopped, where the time of
// the measured rides went, and counts their proposals.
func (m *measurement) stages(ctx context.Context) error {
	log, err := m.w.opts.log().Open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	r := &stageReader{log: log, rides: m.passed, granting: make(map[recordAt]string)}
	for n := range log.Partitions() {
		for _, part := range []struct {
			topic string
			take  func(int32, *eventlog.Stored) error
		}{{topics.RideRequests, r.request}, {topics.Rides, r.event}, {topics.Locations, r.proposal}} {
			if err := r.each(ctx, part.topic, n, part.take); err != nil {
				return err
			}
		}
	}
	for n := range log.Partitions() {
		if err := r.each(ctx, topics.Tracks, n, r.track); err != nil {
			return err
		}
	}
	m.out.Proposals = r.proposals
	var stages [len(stageNames)]latency.Histogram
	for _, p := range m.passed {
		for i := range stages {
			if p[i] > 0 && p[i+1] > 0 {
				stages[i].Record(time.Duration(max(0, p[i+1]-p[i])) * time.Millisecond)
			}
		}
	}
	for i, name := range stageNames {
		m.out.Stages = append(m.out.Stages, Stage{name, stages[i].Summary()})
	}
	return nil
}

// recordAt is the place of a record.
type recordAt struct {
	partition int32
	offset    int64
}

type stageReader struct {
	log   eventlog.Log
	rides map[string]*passed
	// granting are the proposals of measured rides, by their place.
	granting  map[recordAt]string
	proposals int64
}

func (r *stageReader) each(ctx context.Context, topic string, n int32, take func(int32, *eventlog.Stored) error) error {
	records, failed := drillog.Read(ctx, r.log, topic, n)
	for stored := range records {
		if err := take(n, &stored); err != nil {
			return fmt.Errorf("%s partition %d offset %d: %w", topic, n, stored.Offset, err)
		}
	}
	return failed()
}

func (r *stageReader) request(_ int32, stored *eventlog.Stored) error {
	var record starlingv1.RideRequestRecord
	if err := proto.Unmarshal(stored.Value, &record); err != nil {
		return err
	}
	if p := r.rides[record.GetRide()]; p != nil && record.GetOrder() != nil && p[1] == 0 {
		p[1] = stored.AppendTimeMS
	}
	return nil
}

func (r *stageReader) event(_ int32, stored *eventlog.Stored) error {
	var record starlingv1.RideRecord
	if err := proto.Unmarshal(stored.Value, &record); err != nil {
		return err
	}
	p := r.rides[record.GetEvent().GetRide()]
	if p == nil {
		return nil
	}
	switch record.GetEvent().GetKind() {
	case starlingv1.RideEventKind_RIDE_EVENT_KIND_REQUESTED:
		p[2] = stored.AppendTimeMS
	case starlingv1.RideEventKind_RIDE_EVENT_KIND_ASSIGNED:
		p[5] = stored.AppendTimeMS
	}
	return nil
}

func (r *stageReader) proposal(n int32, stored *eventlog.Stored) error {
	var record starlingv1.LocationRecord
	if err := proto.Unmarshal(stored.Value, &record); err != nil {
		return err
	}
	ride := record.GetProposal().GetRide()
	p := r.rides[ride]
	if p == nil {
		return nil
	}
	r.proposals++
	r.granting[recordAt{n, stored.Offset}] = ride
	if p[3] == 0 || stored.AppendTimeMS < p[3] {
		p[3] = stored.AppendTimeMS
	}
	return nil
}

func (r *stageReader) track(n int32, stored *eventlog.Stored) error {
	var record starlingv1.TrackRecord
	if err := proto.Unmarshal(stored.Value, &record); err != nil {
		return err
	}
	ride, ok := r.granting[recordAt{n, record.GetSourceOffset()}]
	if ok && record.GetLive().GetReservation().GetRide() == ride {
		r.rides[ride][4] = stored.AppendTimeMS
	}
	return nil
}

// stagesText is the stages in lines.
func (l *Latency) stagesText() string {
	var b strings.Builder
	for _, s := range l.Stages {
		fmt.Fprintf(&b, "  %-42s p50 %v, p90 %v, p99 %v\n", s.Name,
			s.Latency.P50.Round(time.Millisecond), s.Latency.P90.Round(time.Millisecond), s.Latency.P99.Round(time.Millisecond))
	}
	return b.String()
}
