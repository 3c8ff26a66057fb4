package drill

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/starling-fleet/starling/loadtest/drill/check"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// How often a report has which of a fleet's irregularities.
const (
	shareAvailability = 0.10  // has a change of availability
	shareHeldBack     = 0.15  // one of its fixes comes with a later report
	shareHeldLong     = 0.05  // of these, held back for longer than the reorder window
	shareUnsorted     = 0.10  // its fixes are not in order
	shareRepeatedFix  = 0.03  // holds a fix of the report before it again
	shareConflict     = 0.02  // holds another fix under the time of one before it
	shareRefusable    = 0.02  // holds a fix that must be refused
	shareNewSession   = 0.01  // begins a new session
	sharePark         = 0.005 // the vehicle is silent for a while after it
	shareCopied       = 0.05  // a recent report of the vehicle is sent again after it
)

// heldLong is the device time for which a fix is held back that is to come too
// late for the reorder window of 30 s.
const heldLong = 45 * time.Second

// longestPark is the device time for which a parked vehicle is silent at most:
// longer than its window stays open and than it takes to be refreshed.
const longestPark = 100 * time.Second

// probed vehicles never park, so that the probe knows when a report is due.
const probed = 100

// recentReports is how many reports back a copy may be.
const recentReports = 6

// entry is one report with its account.
type entry struct {
	account *check.Report
	message *starlingv1.Report
}

// held is a fix that comes later.
type held struct {
	fix *starlingv1.Fix
	in  int // reports from now
}

// vehicle makes reports. It belongs to its lane.
type vehicle struct {
	id        string
	number    int
	perReport int
	rng       *rand.Rand
	session   uint64
	sequence  int64
	started   time.Time
	interval  time.Duration
	made      int64 // fixes so far
	held      []held
	last      *starlingv1.Fix // one of the report before
	recent    []*entry        // of this session
	unacked   int
	parked    int // turns to come without a report
	account   []*check.Report
	beacon    *beacons // nil for a vehicle of the fleet
	clock     wrongClock
}

func newVehicle(number int, o *Options, started time.Time) *vehicle {
	v := &vehicle{
		id:        fmt.Sprintf("drill-%05d", number),
		rng:       rand.New(rand.NewPCG(o.Seed, uint64(number))),
		number:    number,
		perReport: o.FixesPerReport,
		started:   started,
		interval:  o.FixInterval,
	}
	if o.LogClock != nil {
		v.clock = wrongClockOf(number)
		v.started = v.started.Add(v.clock.ahead)
	}
	return v
}

func (v *vehicle) chance(share float64) bool { return v.rng.Float64() < share }

// parks reports whether the vehicle skips its turn.
func (v *vehicle) parks() bool {
	if v.parked == 0 && v.number >= probed && v.chance(sharePark) {
		v.parked = 1 + v.rng.IntN(1+int(longestPark/v.reportInterval()))
	}
	if v.parked == 0 {
		return false
	}
	v.parked--
	v.made += int64(v.perReport)
	return true
}

// reportInterval is the device time between two reports.
func (v *vehicle) reportInterval() time.Duration { return v.interval * time.Duration(v.perReport) }

// report makes the vehicle's next report.
func (v *vehicle) report(fixes int) *entry {
	if v.clock.intruder != 0 && v.shows(shareIntruded) {
		return v.intrude()
	}
	m := &starlingv1.Report{VehicleId: v.id}
	if v.session == 0 || v.unacked == 0 && v.chance(shareNewSession) {
		v.session, v.sequence, v.recent = v.rng.Uint64()|1, 0, nil
		m.Attributes = &starlingv1.Attributes{Type: "van", Seats: int32(v.rng.IntN(9)), Tags: []string{"drill"}}
	}
	v.sequence++
	m.SessionId, m.Sequence = v.session, v.sequence
	if m.Attributes != nil || v.chance(shareAvailability) {
		m.Availability = []starlingv1.Availability{
			starlingv1.Availability_AVAILABILITY_OFFLINE, starlingv1.Availability_AVAILABILITY_FREE, starlingv1.Availability_AVAILABILITY_BUSY,
		}[v.rng.IntN(3)]
	}
	expected := make([]starlingv1.RefusalReason, 0, fixes+3)
	add := func(f *starlingv1.Fix, reason starlingv1.RefusalReason) {
		m.Fixes, expected = append(m.Fixes, f), append(expected, reason)
	}
	const fine = starlingv1.RefusalReason_REFUSAL_REASON_UNSPECIFIED
	for _, f := range v.due() {
		add(f, fine)
	}
	if v.last != nil && v.chance(shareRepeatedFix) {
		add(v.last, fine)
	} else if v.last != nil && v.chance(shareConflict) {
		other := v.fixAt(v.last.DeviceTimeMs)
		other.Latitude += 0.0005
		add(other, fine)
	}
	v.last = nil
	for range fixes {
		v.made++
		f := v.fixAt(v.started.Add(time.Duration(v.made) * v.interval).UnixMilli())
		if v.chance(shareHeldBack / float64(fixes)) {
			v.hold(f)
			continue
		}
		add(f, fine)
		v.last = f
	}
	if v.chance(shareRefusable) {
		add(v.refusable())
	}
	if v.clock.stray && v.shows(shareStray) {
		add(v.strayFix(), fine)
	}
	if v.chance(shareUnsorted) {
		v.rng.Shuffle(len(m.Fixes), func(i, j int) {
			m.Fixes[i], m.Fixes[j] = m.Fixes[j], m.Fixes[i]
			expected[i], expected[j] = expected[j], expected[i]
		})
	}
	return v.enter(m, expected)
}

// enter puts a report into the account.
func (v *vehicle) enter(m *starlingv1.Report, expected []starlingv1.RefusalReason) *entry {
	if len(m.Fixes) == 0 && m.Availability == 0 {
		m.Availability = starlingv1.Availability_AVAILABILITY_FREE // a report may not be empty
	}
	account := &check.Report{Session: m.SessionId, Sequence: m.Sequence, Availability: m.Availability, Attributes: m.Attributes, Fixes: make([]check.Fix, len(m.Fixes))}
	for i, f := range m.Fixes {
		account.Fixes[i] = check.Fix{DeviceTimeMS: f.DeviceTimeMs, Digest: check.DigestOf(f), Refusable: expected[i], Ahead: v.isStray(f)}
	}
	e := &entry{account: account, message: m}
	v.account = append(v.account, account)
	v.unacked++
	if v.recent = append(v.recent, e); len(v.recent) > recentReports {
		v.recent = v.recent[1:]
	}
	return e
}

// copied is a recent report that is sent again, or nil.
func (v *vehicle) copied() *entry {
	if len(v.recent) == 0 || !v.chance(shareCopied) {
		return nil
	}
	return v.recent[v.rng.IntN(len(v.recent))]
}

func (v *vehicle) hold(f *starlingv1.Fix) {
	in := 1 + v.rng.IntN(3)
	if v.chance(shareHeldLong) {
		in = 1 + int(heldLong/v.reportInterval())
	}
	v.held = append(v.held, held{f, in})
}

// due returns the held fixes whose turn has come.
func (v *vehicle) due() (fixes []*starlingv1.Fix) {
	rest := v.held[:0]
	for _, h := range v.held {
		if h.in--; h.in > 0 {
			rest = append(rest, h)
		} else {
			fixes = append(fixes, h.fix)
		}
	}
	v.held = rest
	return fixes
}

// fixAt is a drive around a block with the noise of a phone.
func (v *vehicle) fixAt(ms int64) *starlingv1.Fix {
	angle := float64(ms%120_000) / 120_000 * 2 * math.Pi
	noise := func() float64 { return (v.rng.Float64() - 0.5) * 0.0001 }
	accuracy, speed, heading := float32(5+v.rng.IntN(10)), float32(8), float32(math.Mod(angle*180/math.Pi, 360))
	f := &starlingv1.Fix{
		DeviceTimeMs: ms,
		Latitude:     52.5 + float64(v.number)*0.00005 + 0.003*math.Sin(angle) + noise(),
		Longitude:    13.4 + 0.003*math.Cos(angle) + noise(),
		AccuracyM:    &accuracy, SpeedMps: &speed,
	}
	if heading < 360 && v.chance(0.9) {
		f.HeadingDeg = &heading
	}
	return f
}

// refusable is a fix that breaks one rule, at a time that no other fix has.
func (v *vehicle) refusable() (*starlingv1.Fix, starlingv1.RefusalReason) {
	f := v.fixAt(v.started.Add(time.Duration(v.made)*v.interval).UnixMilli() - 1)
	bad := float32(-3) // -1 would be taken for unknown
	switch v.rng.IntN(4) {
	case 0:
		f.Latitude = 91
		return f, starlingv1.RefusalReason_REFUSAL_REASON_COORDINATE_OUT_OF_RANGE
	case 1:
		f.Latitude, f.Longitude = 0, 0
		return f, starlingv1.RefusalReason_REFUSAL_REASON_NULL_ISLAND
	case 2:
		f.SpeedMps = &bad
		return f, starlingv1.RefusalReason_REFUSAL_REASON_SPEED_INVALID
	default:
		f.AccuracyM = &bad
		return f, starlingv1.RefusalReason_REFUSAL_REASON_ACCURACY_INVALID
	}
}
