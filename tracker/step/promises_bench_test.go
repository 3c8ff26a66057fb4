package step_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

// renumbered is a partition whose records have offsets of their own.
type renumbered struct {
	*step.Partition
	next int64
	out  []byte
	cpu  time.Duration
}

func (p *renumbered) step(b *testing.B, rec step.Record) step.Result {
	rec.Offset = p.next
	p.next++
	r, err := p.Step(rec)
	if err != nil || r.Poison != nil {
		b.Fatal(err, r.Poison)
	}
	p.out = r.Track.Append(p.out[:0])
	return r
}

// BenchmarkReservations is what rides cost the step, for each fix: two partitions step
// the same reports in turn, so that a busy machine is as busy for both. In one of
// them half of the vehicles are reserved, and each second one in fifty is released and
// proposed anew, as 200 rides a second make of 10,000 vehicles; what those records cost
// is counted too.
func BenchmarkReservations(b *testing.B) {
	for _, perReport := range []int{1, 5} {
		b.Run(fmt.Sprintf("fixes=%d", perReport), func(b *testing.B) {
			f := newFleet(10_000, perReport)
			f.availability = starlingv1.Availability_AVAILABILITY_FREE
			free, reserved := &renumbered{Partition: newPartition(b)}, &renumbered{Partition: newPartition(b)}
			rides := &reservations{p: reserved}
			reserved.step(b, step.Record{AppendTimeMS: noonMS, Value: (&wire.Location{Kind: wire.KindReasserted, Reasserted: wire.Reasserted{Epoch: 1, Parts: 1}}).Append(nil)})
			round := func(n int) {
				f.round()
				for _, p := range []*renumbered{free, reserved} {
					started := cpuTime()
					for _, rec := range f.records[:n] {
						p.step(b, rec)
					}
					if p == reserved {
						rides.move(b, f, perReport*len(f.ids)/50)
					}
					p.cpu += cpuTime() - started
				}
			}
			for range max(3, 120/perReport) { // until windows and memories are full
				round(len(f.ids))
			}
			rides.move(b, f, len(f.ids)/2)
			require.Positive(b, rides.granted)
			free.cpu, reserved.cpu = 0, 0
			b.ResetTimer()
			fixes := 0
			for left := b.N; left > 0; left -= len(f.ids) {
				round(len(f.ids))
				fixes += len(f.ids) * perReport
			}
			b.ReportMetric(float64(free.cpu.Nanoseconds())/float64(fixes), "free-cpu-ns/fix")
			b.ReportMetric(float64(reserved.cpu.Nanoseconds())/float64(fixes), "reserved-cpu-ns/fix")
			b.ReportMetric(100*(float64(reserved.cpu)/float64(free.cpu)-1), "more-%")
		})
	}
}

// reservations proposes and releases vehicles, one after the other.
type reservations struct {
	p       *renumbered
	counter int64
	granted int
	held    []held
	at      int
}

type held struct {
	vehicle []byte
	attempt wire.Attempt
}

// move reserves so many vehicles, and releases as many of those that were reserved
// longest, once half of them are.
func (r *reservations) move(b *testing.B, f *fleet, n int) {
	for range n {
		if len(r.held) >= len(f.ids)/2 {
			old := r.held[0]
			r.held = r.held[1:]
			r.p.step(b, step.Record{AppendTimeMS: f.streamMS, Key: old.vehicle, Value: (&wire.Location{Kind: wire.KindRelease, Release: wire.Release{
				Ride: "a ride with a name of the usual length..", Attempt: old.attempt, DecideByMS: f.streamMS,
			}}).Append(nil)})
		}
		r.counter++
		h := held{f.ids[r.at%len(f.ids)], wire.Attempt{Epoch: 1, Counter: r.counter}}
		r.at++
		got := r.p.step(b, step.Record{AppendTimeMS: f.streamMS, Key: h.vehicle, Value: (&wire.Location{Kind: wire.KindProposal, Proposal: wire.Proposal{
			Ride: "a ride with a name of the usual length..", Attempt: h.attempt, DecideByMS: f.streamMS + 10_000, MaxAgeMS: 60_000,
		}}).Append(nil)})
		if got.Track.Live.Reservation != nil {
			r.granted++
		}
		r.held = append(r.held, h)
	}
}
