package fleetsim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Transmission is one report as it leaves a phone.
type Transmission struct {
	// At is when it leaves.
	At time.Time
	// Report names its vehicle, session and sequence.
	Report *starlingv1.Report
	// Truth is where the vehicle truly was at each of the report's fixes.
	Truth []State
	// Resend is true when the same report was sent before.
	Resend bool
}

// tickS is the time step of all movement: results do not depend on the steps in
// which Advance is called.
const tickS = 0.2

// Fleet generates a fleet's movement and reports. It has no clock but the times
// that it is given. Not safe for concurrent use.
type Fleet struct {
	cfg     Config
	city    *city
	start   time.Time
	ticks   int64
	drivers []*driver
	phones  []*phone
	later   []Transmission // to be sent after a delay
}

// NewFleet makes a fleet that begins to move at start. Two fleets with the same
// configuration and start generate the same.
func NewFleet(cfg Config, start time.Time) (*Fleet, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("simulated fleet: %w", err)
	}
	rng := func(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(uint64(cfg.Seed), stream)) }
	f := &Fleet{cfg: cfg, start: start, city: newCity(cfg, rng(0))}
	for v := range cfg.Vehicles {
		d := newDriver(f.city, rng(uint64(3*v+1)), cfg.OfflineShare)
		r := rng(uint64(3*v + 2))
		p := &phone{
			id: fmt.Sprintf("%s%04d", cfg.VehiclePrefix, v), rng: r,
			gps: newGPS(rng(uint64(3*v+3)), cfg.NoiseM), batching: r.Float64() < cfg.BatchShare,
			attributes: drawAttributes(r),
		}
		// A session belongs to one start of the app, so it depends on the time.
		p.session = max(1, r.Uint64()^uint64(start.UnixNano()))
		p.phaseS = r.Float64() * tickS
		p.nextFixS = r.Float64() * cfg.Period.Seconds()
		p.nextUploadS = r.Float64() * cfg.BatchPeriod.Seconds()
		f.drivers, f.phones = append(f.drivers, d), append(f.phones, p)
	}
	return f, nil
}

// States returns where each vehicle truly is, to within tickS, at the time that
// Advance has reached, by vehicle id.
func (f *Fleet) States() map[string]State {
	states := make(map[string]State, len(f.drivers))
	for v, d := range f.drivers {
		states[f.phones[v].id] = d.state()
	}
	return states
}

// VehicleIDs returns the names of all vehicles.
func (f *Fleet) VehicleIDs() []string {
	ids := make([]string, len(f.phones))
	for v, p := range f.phones {
		ids[v] = p.id
	}
	return ids
}

// Advance moves the fleet on to a time and returns what its phones send until
// then, oldest first.
func (f *Fleet) Advance(to time.Time) []Transmission {
	var out []Transmission
	for {
		next := f.start.Add(time.Duration(float64(f.ticks+1) * tickS * float64(time.Second)))
		if next.After(to) {
			break
		}
		f.ticks++
		t := float64(f.ticks) * tickS
		for v, d := range f.drivers {
			d.step(t, tickS)
			out = f.phones[v].tick(f, d, t, out)
		}
	}
	out = append(out, f.later...)
	slices.SortStableFunc(out, func(a, b Transmission) int { return cmp.Compare(a.At.UnixNano(), b.At.UnixNano()) })
	due, _ := slices.BinarySearchFunc(out, to, func(x Transmission, to time.Time) int {
		if x.At.After(to) {
			return 1
		}
		return -1
	})
	f.later = slices.Clone(out[due:])
	return out[:due]
}

// tick lets a phone take a fix and send what is due at time t.
func (p *phone) tick(f *Fleet, d *driver, t float64, out []Transmission) []Transmission {
	s := d.state()
	if s.Availability == offline && p.reported == offline {
		p.gps.lost = true
		p.nextFixS, p.nextUploadS = t+tickS, t+tickS
		return out
	}
	if p.reported == offline {
		// The app has been started again, with an empty queue.
		p.session, p.sequence = max(1, p.rng.Uint64()^uint64(f.start.UnixNano())), 0
	}
	if t >= p.nextFixS {
		period := f.cfg.Period.Seconds() * (1 + f.cfg.JitterShare*(2*p.rng.Float64()-1))
		p.nextFixS = max(t, p.nextFixS+period)
		if s.Tunnel {
			p.gps.lost = true
		} else {
			fix := p.gps.fix(f.city, s, t, &f.cfg)
			fix.DeviceTimeMs = f.at(t + p.phaseS).UnixMilli()
			p.pending, p.truth = append(p.pending, fix), append(p.truth, s)
		}
	}
	reported := reportedAs(s.Availability)
	changed := reported != p.reported
	full := len(p.pending) > 0 && (!p.batching || t >= p.nextUploadS) || len(p.pending) >= 500
	// In a tunnel there is no network either.
	if !changed && !full || s.Tunnel {
		return out
	}
	p.nextUploadS = t + f.cfg.BatchPeriod.Seconds()
	return p.transmit(f, t, reported, out)
}

// at is the time of t seconds after the start.
func (f *Fleet) at(t float64) time.Time {
	return f.start.Add(time.Duration(t * float64(time.Second)))
}

// transmit sends what is pending, some of it late or twice.
func (p *phone) transmit(f *Fleet, t float64, now starlingv1.Availability, out []Transmission) []Transmission {
	p.sequence++
	report := &starlingv1.Report{VehicleId: p.id, SessionId: p.session, Sequence: p.sequence, Fixes: p.pending}
	if now != p.reported {
		report.Availability, p.reported = now, now
	}
	if p.sequence == 1 {
		report.Attributes = p.attributes
	}
	x := Transmission{At: f.at(t + p.phaseS), Report: report, Truth: p.truth}
	p.pending, p.truth = nil, nil

	resend, overtaken, delay := p.rng.Float64() < f.cfg.ResendShare, p.rng.Float64() < f.cfg.DisorderShare, 1+4*p.rng.Float64()
	if overtaken && !p.batching {
		x.At = x.At.Add(time.Duration(delay * float64(f.cfg.Period)))
	}
	out = append(out, x)
	if resend {
		again := x
		again.Resend = true
		again.At = x.At.Add(time.Duration(delay * float64(time.Second)))
		out = append(out, again)
	}
	return out
}
