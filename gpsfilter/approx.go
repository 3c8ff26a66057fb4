package gpsfilter

import "math"

// The functions here stand in for those of package math, whose results may
// differ between architectures in the last bit. They use only operations that
// IEEE 754 rounds correctly, and the explicit conversions keep the compiler
// from fusing a multiplication with an addition (Go specification, "Floating-
// point operators").

// sinCosDeg returns the sine and the cosine of an angle in degrees. Error below
// 1e-11.
func sinCosDeg(deg float64) (sin, cos float64) {
	quarter := math.Floor(float64(deg*(1.0/90)) + 0.5)
	x := float64((deg - float64(90*quarter)) * (math.Pi / 180))
	x = min(1, max(-1, x)) // beyond 2^53 degrees there are no fractions left
	sin, cos = sinPoly(x), cosPoly(x)
	switch quarter - float64(4*math.Floor(quarter*0.25)) {
	case 1:
		return cos, -sin
	case 2:
		return -sin, -cos
	case 3:
		return -cos, sin
	}
	return sin, cos
}

// sinPoly and cosPoly are Taylor polynomials for [-π/4, π/4].
func sinPoly(x float64) float64 {
	z := float64(x * x)
	p := 1.0 / 6227020800
	p = float64(p*z) - 1.0/39916800
	p = float64(p*z) + 1.0/362880
	p = float64(p*z) - 1.0/5040
	p = float64(p*z) + 1.0/120
	p = float64(p*z) - 1.0/6
	return x + float64(x*float64(p*z))
}

func cosPoly(x float64) float64 {
	z := float64(x * x)
	p := -1.0 / 87178291200
	p = float64(p*z) + 1.0/479001600
	p = float64(p*z) - 1.0/3628800
	p = float64(p*z) + 1.0/40320
	p = float64(p*z) - 1.0/720
	p = float64(p*z) + 1.0/24
	p = float64(p*z) - 0.5
	return 1 + float64(p*z)
}

// bearingDeg returns the direction of the vector (e, n) clockwise from north
// in [0, 360). Error below 1e-4 degrees. The arc tangent on [0, 1] is the
// minimax polynomial of Abramowitz and Stegun, 4.4.49.
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
	z := float64(t * t)
	p := 0.0028662257
	p = float64(p*z) - 0.0161657367
	p = float64(p*z) + 0.0429096138
	p = float64(p*z) - 0.0752896400
	p = float64(p*z) + 0.1065626393
	p = float64(p*z) - 0.1420889944
	p = float64(p*z) + 0.1999355085
	p = float64(p*z) - 0.3333314528
	deg := float64((t + float64(t*float64(p*z))) * (180 / math.Pi))
	if ae > an {
		deg = 90 - deg
	}
	if n < 0 {
		deg = 180 - deg
	}
	if e < 0 {
		deg = 360 - deg
	}
	if float32(deg) >= 360 { // nor may a float32 of it be 360
		deg = 0
	}
	return deg
}
