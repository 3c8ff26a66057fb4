package gpsfilter

import "math"

const (
	earthRadiusM   = 6371008.8
	metresPerDeg   = earthRadiusM * math.Pi / 180
	degPerMetre    = 1 / metresPerDeg
	minCosLatitude = 1e-4
)

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
	if dLon > 180 {
		dLon -= 360
	} else if dLon < -180 {
		dLon += 360
	}
	return dLon * metresPerDeg * p.cosLat, (latDeg - p.latDeg) * metresPerDeg
}

// toDegrees is the inverse of toPlane; it always answers a valid coordinate.
func (p *plane) toDegrees(e, n float64) (latDeg, lonDeg float64) {
	latDeg = p.latDeg + float64(n*degPerMetre)
	lonDeg = p.lonDeg + float64(e*degPerMetre/p.cosLat)
	latDeg = min(90, max(-90, latDeg))
	if lonDeg > 180 || lonDeg < -180 {
		lonDeg -= float64(360 * math.Floor((lonDeg+180)/360))
	}
	return latDeg, lonDeg
}
