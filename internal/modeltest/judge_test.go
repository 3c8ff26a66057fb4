package modeltest

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/prototext"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/modeltest/slow"
	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	trackerstep "github.com/starling-fleet/starling/tracker/step"
)

// judge holds a settled world to the contract.
func (w *world) judge() {
	if w.failed() != "" {
		return
	}
	w.judgeLocations()
	var fleet []wire.View
	for p := range int32(partitions) {
		fleet = append(fleet, w.judgePartition(p)...)
	}
	w.judgeFleet(fleet)
}

// judgeLocations: nothing is in the log that nobody sent, nothing more often
// than it was sent; whatever was acknowledged was there at that moment, and in
// the end everything is acknowledged.
func (w *world) judgeLocations() {
	unknown := map[string]int{}
	for p := range int32(partitions) {
		for _, rec := range w.store.Records(topics.Locations, p) {
			if len(rec.Key) > 0 || string(rec.Value) != tick {
				unknown[storedKey(p, rec.Key, rec.Value)]++
			}
		}
	}
	for key, n := range unknown {
		if n > w.expected[key]+w.injected[key] {
			w.fail("%d times in the log, sent %d times: %q", n, w.expected[key]+w.injected[key], key)
		}
	}
	for key, n := range w.injected {
		if unknown[key] != n {
			w.fail("%d times in the log, injected %d times: %q", unknown[key], n, key)
		}
	}
	for _, p := range w.phones {
		if p.keptBack {
			continue
		}
		for _, r := range p.unacknowledged() {
			w.fail("report %s %d/%d was never acknowledged", r.VehicleID, r.SessionID, r.Sequence)
		}
	}
}

var tick = string((&wire.Location{Kind: wire.KindTick}).Append(nil))

// readerState is what a reader of `tracks` has after all records: it follows the
// chain of source offsets.
type readerState struct {
	entries []keyValue // in the order of the sources
	last    int64      // source offset
}

// keyValue is one record of `tracks`.
type keyValue struct{ key, value string }

// read follows a partition of `tracks` by the rule for readers. What is published
// twice must be identical.
func (w *world) read(partition int32) readerState {
	t, words := readerState{last: -1}, map[int64]keyValue{}
	var track wire.Track
	for _, rec := range w.store.Records(topics.Tracks, partition) {
		if err := track.Unmarshal(rec.Value); err != nil {
			w.fail("tracks %d/%d: %v", partition, rec.Offset, err)
			return t
		}
		entry := keyValue{string(rec.Key), string(rec.Value)}
		if before, again := words[track.SourceOffset]; again && before != entry {
			w.fail("tracks %d/%d: source offset %d is published with other content", partition, rec.Offset, track.SourceOffset)
		}
		words[track.SourceOffset] = entry
		w.tally.published++
		if track.SourceOffset > t.last && track.PreviousSourceOffset == t.last {
			t.entries, t.last = append(t.entries, entry), track.SourceOffset
		}
	}
	return t
}

// judgePartition: a reader of `tracks` has what an undisturbed tracker and the
// slow model make of `locations`, and all that readers rely on; the state, too,
// is that of the undisturbed one; dead letters are there for all poison. It
// returns the fleet as the model has published it.
func (w *world) judgePartition(number int32) []wire.View {
	records := w.store.Records(topics.Locations, number)
	values, resume := w.store.State(spec, number)
	reader := w.read(number)
	w.judgeEnd(number, records, resume, reader)
	if w.failed() != "" {
		return nil
	}
	settings := w.cfg.tracker.StepSettings(partitions)
	p, err := trackerstep.NewPartition(settings, w.store.Epoch())
	w.noError(err)
	m, audit := slow.New(settings, w.store.Epoch()), newAudit(settings)
	var counts wire.FixCounts
	fixes := int64(0)
	poisoned := map[string]bool{}
	fleet := published{}
	for i, rec := range records[:resume] {
		r, err := p.Step(trackerstep.Record(rec))
		w.noError(err)
		want, poison := m.Step(rec)
		undisturbed, model := string(r.Track.Append(nil)), string(want.Append(nil))
		switch got := reader.entries[i].value; {
		case reader.entries[i].key != string(rec.Key):
			w.fail("partition %d offset %d: the track has the key %q, the record %q", number, i, reader.entries[i].key, rec.Key)
			return nil
		case got != model:
			w.fail("partition %d offset %d: a reader has\n%s\nthe model has\n%s", number, i, text(got), text(model))
			return nil
		case got != undisturbed:
			w.fail("partition %d offset %d: a reader has\n%s\nan undisturbed tracker has\n%s", number, i, text(got), text(undisturbed))
			return nil
		}
		if audit.track(rec, &want); audit.failure != "" {
			w.fail("partition %d: %s\n%s", number, audit.failure, text(model))
			return nil
		}
		if poison != nil {
			poisoned[fmt.Sprintf("%s/%d/%d", topics.Locations, number, i)] = true
		} else {
			fixes += fixesOf(rec)
		}
		w.tally.forgotten += fleet.take(&want)
		addCounts(&counts, want.Counts)
	}
	w.tally.stepped += len(records)
	if sum := counts.Accepted + counts.Duplicate + counts.Conflict + counts.Late + counts.SetAside + counts.Refused; sum != fixes {
		w.fail("partition %d: %d fixes are accounted for, %d are in the log", number, sum, fixes)
	}
	w.judgeState(number, p, values)
	w.judgeLetters(number, poisoned)
	return fleet.views()
}

// published is the newest view of every vehicle that was not forgotten.
type published map[string]wire.View

// take returns how many vehicles a track forgets.
func (p published) take(t *wire.Track) (forgotten int) {
	if t.HasLive {
		p[t.Live.VehicleID] = t.Live
	}
	for _, d := range t.Fired {
		if d.Forgotten {
			delete(p, d.VehicleID)
			forgotten++
		} else if d.HasLive {
			p[d.VehicleID] = d.Live
		}
	}
	return forgotten
}

func (p published) views() (views []wire.View) {
	for _, v := range p {
		views = append(views, v)
	}
	return views
}

func text(track string) string {
	var t wire.Track
	if err := t.Unmarshal([]byte(track)); err != nil {
		return err.Error()
	}
	return prototext.Format(t.ToProto())
}

func fixesOf(rec eventlog.Stored) int64 {
	var l wire.Location
	if l.Unmarshal(rec.Value) != nil || l.Kind != wire.KindReport {
		return 0
	}
	return int64(len(l.Report.Fixes))
}

// judgeEnd: a tracker that has stopped in good order has published and checkpointed
// everything but a tick that was on its way.
func (w *world) judgeEnd(number int32, records []eventlog.Stored, resume int64, reader readerState) {
	if resume < int64(len(records))-1 || resume > int64(len(records)) {
		w.fail("partition %d: the last checkpoint resumes at %d, the log ends at %d", number, resume, len(records))
		return
	}
	if resume < int64(len(records)) && string(records[resume].Value) != tick {
		w.fail("partition %d: offset %d was not stepped", number, resume)
	}
	if int64(len(reader.entries)) != resume {
		w.fail("partition %d: a reader has %d tracks, up to source offset %d, of %d records", number, len(reader.entries), reader.last, resume)
	}
}

// judgeState compares what is stored with one cut of the undisturbed partition.
func (w *world) judgeState(number int32, p *trackerstep.Partition, got map[string][]byte) {
	want := map[string]string{}
	for _, change := range p.Snapshot(nil, nil).Changes {
		if change.Value != nil {
			want[string(change.Key)] = string(change.Value)
		}
	}
	for key, value := range got {
		if want[key] != string(value) {
			w.fail("partition %d: the state of %q is not that of an undisturbed tracker", number, key)
		}
	}
	if len(got) != len(want) {
		w.fail("partition %d: state of %d keys is stored, an undisturbed tracker has %d", number, len(got), len(want))
	}
}

func (w *world) judgeLetters(number int32, poisoned map[string]bool) {
	letters := map[string]string{}
	for _, rec := range w.store.Records(topics.DeadLetters, number) {
		if before, again := letters[string(rec.Key)]; again && before != string(rec.Value) {
			w.fail("the dead letter %s is written in other words", rec.Key)
		}
		letters[string(rec.Key)] = string(rec.Value)
		if !poisoned[string(rec.Key)] {
			w.fail("%s went to the dead letters", rec.Key)
		}
	}
	if len(letters) != len(poisoned) {
		w.fail("partition %d: %d dead letters for %d poisoned records", number, len(letters), len(poisoned))
	}
}

// beginsWithAGap means that the first track of a partition was lost and is published
// later. A reader without a position starts at whatever comes first, so it
// has what the lost track held only after its vehicle was published again.
func (w *world) beginsWithAGap() bool {
	for p := range int32(partitions) {
		var t wire.Track
		if records := w.store.Records(topics.Tracks, p); len(records) > 0 && t.Unmarshal(records[0].Value) == nil && t.PreviousSourceOffset >= 0 {
			return true
		}
	}
	return false
}

// judgeFleet compares what every matcher serves with a fleet of views.
func (w *world) judgeFleet(fleet []wire.View) {
	var want []string
	for i := range fleet {
		want = append(want, served(fleet[i].ToProto()))
	}
	slices.Sort(want)
	if w.beginsWithAGap() {
		return
	}
	for _, n := range w.up(func(n *node) bool { return n.matcher != nil && n.matcher.Ready() }) {
		got := w.ask(n.matcher)
		if !slices.Equal(got, want) {
			w.fail("the matcher of process %s serves\n%s\nwant\n%s", n.name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// askMatcher holds what is served in the middle of a run to what is in `tracks`.
func (w *world) askMatcher() {
	fleet := published{}
	for p := range int32(partitions) {
		for _, entry := range w.read(p).entries {
			var t wire.Track
			if err := t.Unmarshal([]byte(entry.value)); err != nil {
				w.fail("tracks: %v", err)
			}
			fleet.take(&t)
		}
	}
	w.judgeFleet(fleet.views())
}

func (w *world) ask(m *matcher.Matcher) []string {
	var fleet []string
	for token := ""; ; {
		resp, err := m.ListVehicles(w.t.Context(), &starlingv1.ListVehiclesRequest{PageSize: 1000, PageToken: token})
		if err != nil {
			w.fail("ListVehicles: %v", err)
			return nil
		}
		for _, v := range resp.Vehicles {
			if v.Age.AsDuration() < 0 || v.Dispatchable && (v.Conflicting || v.Availability != free || v.Position == nil) {
				w.fail("served as dispatchable, or with a negative age: %v", v)
			}
			fleet = append(fleet, servedVehicle(v))
		}
		if token = resp.NextPageToken; token == "" {
			slices.Sort(fleet)
			return fleet
		}
	}
}

// served is what a reader of the fleet must see of a view.
func served(v *starlingv1.VehicleView) string {
	return fmt.Sprint(v.VehicleId, v.DeviceTimeMs, v.SeenTimeMs, v.Latitude, v.Longitude, v.GetSpeedMps(), v.GetHeadingDeg(), v.VarEastM2, v.VarNorthM2,
		v.Availability, v.Attributes.GetType(), v.Attributes.GetSeats(), v.Attributes.GetTags(), v.FixCounts.GetAccepted(), v.FixCounts.GetLate(), v.FixCounts.GetSetAside(), v.Conflicting)
}

func servedVehicle(v *starlingv1.Vehicle) string {
	deviceTimeMS := int64(0)
	if v.DeviceTime != nil {
		deviceTimeMS = v.DeviceTime.AsTime().UnixMilli()
	}
	return fmt.Sprint(strings.TrimPrefix(v.Name, "vehicles/"), deviceTimeMS, v.SeenTime.AsTime().UnixMilli(),
		v.Position.GetLatitude(), v.Position.GetLongitude(), v.GetSpeedMps(), v.GetHeadingDeg(), v.Position.GetVarEastM2(), v.Position.GetVarNorthM2(),
		v.Availability, v.Attributes.GetType(), v.Attributes.GetSeats(), v.Attributes.GetTags(), v.FixCounts.GetAccepted(), v.FixCounts.GetLate(), v.FixCounts.GetSetAside(), v.Conflicting)
}
