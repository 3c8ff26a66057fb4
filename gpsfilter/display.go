package gpsfilter

import "math"

// display drags the display position behind the live one, at most displayM
// away, so that a vehicle which stands draws no path. A relocation (the track
// starts over elsewhere) moves it without counting as distance.
func (f *Filter) display(s *State, v Verdict) {
	const displayM, outlierRate = 3, 0.02
	share := float32(0)
	if v == VerdictOutlier || v == VerdictStale {
		share = 1
	}
	s.outliers += float32((share - s.outliers) * outlierRate)
	e := s.k.x[0] + float64(s.leashE) - s.displayE
	n := s.k.x[1] + float64(s.leashN) - s.displayN
	d := math.Sqrt(float64(e*e) + float64(n*n))
	if v == VerdictWarmingUp {
		s.displayE += e
		s.displayN += n
		return
	}
	if d <= displayM {
		return
	}
	way := d - displayM
	s.odometerM += way
	s.displayE += float64(e * (way / d))
	s.displayN += float64(n * (way / d))
}

// OdometerM returns the length of the display track so far, in metres.
func (s *State) OdometerM() float64 { return s.odometerM }

// Diagnosis returns what the state has learned of the device.
func (s *State) Diagnosis() Diagnosis {
	d := Diagnosis{
		Fixes: int(s.seen), BiasM: math.Sqrt(max(0, (s.k.p[p44]+s.k.p[p55])/2)),
		HasVelocity: s.hasRecentVelocity(), OutlierShare: float64(s.outliers),
	}
	if d.HasVelocity {
		d.VelocityCredibility = 1
	}
	if s.accuracyM > 0 {
		d.AccuracyScale = math.Sqrt(s.whiteVar) / float64(s.accuracyM)
	}
	return d
}
