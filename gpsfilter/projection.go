package gpsfilter

import "math"

// plane is a tangent plane at an anchor. Within tens of kilometres its metres
// are those of the sphere to better than the filter can see.
type plane struct {
	latDeg, lonDeg, cosLat float64
}

func newPlane(latDeg, lonDeg float64) plane {
	_, c := sinCosDeg(latDeg)
	if c < minCosLatitude {
		c = minCosLatitude
	}
	return plane{latDeg, lonDeg, c}
}

// toPlane returns metres east and north of the anchor, across the
// antimeridian the short way.
func (p *plane) toPlane(latDeg, lonDeg float64) (e, n float64) {
	dLon := lonDeg - p.lonDeg
	if dLon > halfTurnDeg {
		dLon -= fullTurnDeg
	} else if dLon < -halfTurnDeg {
		dLon += fullTurnDeg
	}
	return dLon * metresPerDeg * p.cosLat, (latDeg - p.latDeg) * metresPerDeg
}

// toDegrees is the inverse of toPlane; it always returns a valid coordinate.
func (p *plane) toDegrees(e, n float64) (latDeg, lonDeg float64) {
	latDeg = p.latDeg + float64(n*degPerMetre)
	lonDeg = p.lonDeg + float64(e*degPerMetre/p.cosLat)
	latDeg = atMost(maxLatDeg, atLeast(-maxLatDeg, latDeg))
	if lonDeg > halfTurnDeg || lonDeg < -halfTurnDeg {
		lonDeg -= float64(fullTurnDeg * math.Floor((lonDeg+halfTurnDeg)/fullTurnDeg))
	}
	return latDeg, lonDeg
}
