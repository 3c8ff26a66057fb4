package query

import (
	"math"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// windowFixes is how many fixes are simplified together; it bounds what a call holds
// and, the algorithm being quadratic at worst, what a hostile track costs.
const windowFixes = 4096

// thinner leaves fixes out and sends the others.
type thinner interface {
	// add takes the next fix.
	add(f *row.Fix) error
	// mayStop returns whether the call may end behind the fix that was added.
	mayStop() bool
	// again is how far behind that fix another call begins: 0 if it reads it again.
	again() int64
	// flush takes the end of the track.
	flush() error
}

func (t *trackSender) thinner(intervalMS int64, toleranceM float64) thinner {
	if toleranceM > 0 {
		return &simplifier{to: t, toleranceM: toleranceM}
	}
	return &sampler{to: t, intervalMS: intervalMS, begun: t.sentMS > math.MinInt64}
}

// sampler sends a fix when enough time has passed since the one before.
type sampler struct {
	to         *trackSender
	intervalMS int64
	begun      bool // a fix was sent
}

func (s *sampler) add(f *row.Fix) error {
	if s.begun && f.DeviceTimeMS-s.to.sentMS < s.intervalMS {
		return nil
	}
	s.begun = true
	return s.to.add(f, f.DeviceTimeMS+1)
}

func (s *sampler) mayStop() bool { return true }
func (s *sampler) again() int64  { return 1 }
func (s *sampler) flush() error  { return nil }

// simplifier simplifies a track by the algorithm of Douglas and Peucker ("Algorithms
// for the reduction of the number of points required to represent a digitized line or
// its caricature", 1973) with the distance of Meratnia and de By ("Spatiotemporal
// compression techniques for moving point objects", 2004, there TD-TR): that of a fix
// from where the vehicle would have been at its time, had it gone at even speed along
// the straight line between the fixes that are kept before and behind it.
//
// It works on windows, the last fix of each, which is kept, being the first of the
// next. Another call begins with the first fix of the window that the one before was
// in, so that it has the same windows.
type simplifier struct {
	to         *trackSender
	toleranceM float64
	window     []row.Fix
	vectors    []geo.Vec
	stopped    bool // the last fix has closed a window
}

func (s *simplifier) add(f *row.Fix) error {
	s.window = append(s.window, *f)
	if s.stopped = len(s.window) == windowFixes; s.stopped {
		return s.close()
	}
	return nil
}

func (s *simplifier) mayStop() bool { return s.stopped }
func (s *simplifier) again() int64  { return 0 }
func (s *simplifier) flush() error  { return s.close() }

// close sends what is kept of the window, and begins the next with its last fix.
func (s *simplifier) close() error {
	if len(s.window) == 0 {
		return nil
	}
	s.vectors = s.vectors[:0]
	for i := range s.window {
		p := s.to.layers.position(&s.window[i])
		s.vectors = append(s.vectors, geo.Unit(float64(p.LatE7)/1e7, float64(p.LonE7)/1e7))
	}
	last := len(s.window) - 1
	for i, keep := range s.kept() {
		f := &s.window[i]
		if !keep || f.DeviceTimeMS <= s.to.sentMS {
			continue
		}
		next := s.window[0].DeviceTimeMS
		if i == last {
			next = f.DeviceTimeMS
		}
		if err := s.to.add(f, next); err != nil {
			return err
		}
	}
	s.window = append(s.window[:0], s.window[last])
	return nil
}

// kept returns which fixes of the window are kept.
func (s *simplifier) kept() []bool {
	last := len(s.window) - 1
	keep := make([]bool, last+1)
	keep[0], keep[last] = true, true
	for open := [][2]int{{0, last}}; len(open) > 0; {
		first, end := open[len(open)-1][0], open[len(open)-1][1]
		open = open[:len(open)-1]
		worst, offM := 0, s.toleranceM
		for i := first + 1; i < end; i++ {
			if d := s.offM(first, i, end); d > offM {
				worst, offM = i, d
			}
		}
		if worst > 0 {
			keep[worst] = true
			open = append(open, [2]int{first, worst}, [2]int{worst, end})
		}
	}
	return keep
}

// offM is how far fix i is from the even way between two others, in metres.
func (s *simplifier) offM(first, i, end int) float64 {
	share := float64(s.window[i].DeviceTimeMS-s.window[first].DeviceTimeMS) / float64(s.window[end].DeviceTimeMS-s.window[first].DeviceTimeMS)
	a, b := s.vectors[first], s.vectors[end]
	on, length := geo.Vec{X: a.X + share*(b.X-a.X), Y: a.Y + share*(b.Y-a.Y), Z: a.Z + share*(b.Z-a.Z)}.Normal()
	if length == 0 { // between antipodes there is no way
		on = a
	}
	return geo.Distance(on, s.vectors[i])
}

// position is that of the layer that thinning goes by, or the reported one where a fix
// has none.
func (l layers) position(f *row.Fix) row.Position {
	switch {
	case l.first == starlingv1.TrackLayer_TRACK_LAYER_RAW || f.Has&row.HasEstimate == 0:
		return f.Raw
	case l.first == starlingv1.TrackLayer_TRACK_LAYER_DISPLAY:
		return f.Display
	}
	return f.Corrected
}
