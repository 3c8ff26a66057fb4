package gpsfilter

import "math"

// The functions here stand in for those of package math, whose results may
// differ between architectures in the last bit. They use only operations that
// IEEE 754 rounds correctly, and the explicit conversions keep the compiler
// from fusing a multiplication with an addition (Go specification, "Floating-
// point operators").

// atLeast returns x, or least if x is less. It and atMost stand in for max and min
// where there is no NaN and no -0 to be compared with 0. Those cost a dozen
// operations for the sake of these, and what follows waits for them; it does not
// wait for a branch, which processors guess.
func atLeast(least, x float64) float64 {
	if x <= least {
		return least
	}
	return x
}

// atMost returns x, or most if x is more.
func atMost(most, x float64) float64 {
	if x >= most {
		return most
	}
	return x
}

// sinCosDeg returns the sine and the cosine of an angle in degrees. Error below
// 1e-11.
func sinCosDeg(deg float64) (sin, cos float64) {
	quarter := math.Floor(float64(deg*(1.0/quarterTurnDeg)) + 1.0/2)
	x := float64((deg - float64(quarterTurnDeg*quarter)) * (math.Pi / halfTurnDeg))
	x = atMost(1, atLeast(-1, x)) // beyond 2^53 degrees there are no fractions left
	sin, cos = polynomial(x, sinTaylor[:]), polynomial(x, cosTaylor[:])
	sin = float64(x * sin)
	switch quarter - float64(quarters*math.Floor(quarter*(1.0/quarters))) {
	case 1:
		return cos, -sin
	case 2:
		return -sin, -cos
	case quarters - 1:
		return -cos, sin
	}
	return sin, cos
}

// polynomial is the polynomial in x² with the coefficients, highest power first.
func polynomial(x float64, coefficients []float64) float64 {
	z := float64(x * x)
	p := 0.0
	for _, c := range coefficients {
		p = float64(p*z) + c
	}
	return p
}

// bearingDeg returns the direction of the vector (e, n) clockwise from north
// in [0, 360), also as a float32. Error below 1e-4 degrees.
func bearingDeg(e, n float64) float64 {
	ae, an := math.Abs(e), math.Abs(n)
	hi, lo := an, ae
	if ae > an {
		hi, lo = ae, an
	}
	if hi == 0 {
		return 0
	}
	t := lo / hi
	deg := float64(float64(t*polynomial(t, atanMinimax[:])) * (halfTurnDeg / math.Pi))
	if ae > an {
		deg = quarterTurnDeg - deg
	}
	if n < 0 {
		deg = halfTurnDeg - deg
	}
	if e < 0 {
		deg = fullTurnDeg - deg
	}
	if float32(deg) >= fullTurnDeg {
		deg = 0
	}
	return deg
}
