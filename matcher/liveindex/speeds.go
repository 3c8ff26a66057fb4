package liveindex

import (
	"math"
	"sync/atomic"
)

// speeds bounds the speed of every state that a reader may see. Speeds fall into
// classes; the writer counts the states in each, and the bound is the end of the
// highest class that has one. So a single fast reading counts until its vehicle
// has reported anew, and not for ever.
type speeds struct {
	counts [speedClasses]uint32 // the writer's
	top    atomic.Int32         // the highest class that has a state, or -1
}

// speedClasses are quarters of a power of two, from 1/4 m/s to beyond what is
// published; the first holds all that is slower, the last all that is faster.
const (
	speedClasses = 64
	// A class is a float's exponent and the first two bits of its fraction.
	speedShift = 21
	slowest    = (127 - 2) << 2 // those of 1/4 m/s
)

// speedClass returns the class of a state's speed, -1 if it is not predicted.
func speedClass(s *state) int {
	if s.has&(hasSpeed|hasHeading) != hasSpeed|hasHeading || !(s.speedMPS > 0) || math.IsInf(float64(s.speedMPS), 0) {
		return -1
	}
	return max(0, min(int(math.Float32bits(s.speedMPS)>>speedShift)-slowest, speedClasses-1))
}

// boundMPS is the largest speed of any state.
func (p *speeds) boundMPS() float64 {
	switch top := p.top.Load(); top {
	case -1:
		return 0
	case speedClasses - 1:
		return math.MaxFloat32
	default:
		return float64(math.Float32frombits(uint32(top+1+slowest) << speedShift))
	}
}

// add counts a state before readers can see it.
func (p *speeds) add(s *state) {
	if class := speedClass(s); class >= 0 {
		if p.counts[class]++; int32(class) > p.top.Load() {
			p.top.Store(int32(class))
		}
	}
}

// remove takes a state back that no reader can see any more.
func (p *speeds) remove(s *state) {
	class := speedClass(s)
	if class < 0 {
		return
	}
	if p.counts[class]--; p.counts[class] > 0 || int32(class) != p.top.Load() {
		return
	}
	for class >= 0 && p.counts[class] == 0 {
		class--
	}
	p.top.Store(int32(class))
}
