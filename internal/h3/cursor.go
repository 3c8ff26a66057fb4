package h3

import (
	"fmt"
	"math"
	"sync"

	"github.com/uber/h3-go/v4"
)

const (
	// res0Spacing is the distance of neighbouring cells' centres at resolution
	// 0, on the plane that touches the unit sphere in the middle of a face of
	// H3's icosahedron (RES0_U_GNOMONIC in H3's sources). Each further
	// resolution divides it by the square root of 7.
	res0Spacing = 0.38196601125010500003
	// margin is the share of the inscribed circle that is relied on. The bound
	// is exact but for rounding, which stays below 1e-8 of the smallest cell.
	margin = 0.999
)

// Cursor remembers the cell of the last position it was asked about. The zero
// value remembers none. It is a plain value: a copy is independent. One
// goroutine at a time may use it.
//
// The answer does not depend on what a cursor remembers, only the time it takes.
type Cursor struct {
	cell            Cell
	latDeg, lonDeg  float64 // the cell's centre
	cosLat          float64 // cosine of latDeg
	insideChordDeg2 float64 // squared chord, scaled to degrees, that is surely inside
}

// Cell returns the H3 cell of a WGS84 position in degrees. It fails when the
// resolution or the position is outside H3's domain.
func (c *Cursor) Cell(latDeg, lonDeg float64, resolution int) (Cell, error) {
	if c.cell != 0 && c.cell.Resolution() == resolution && c.inside(latDeg, lonDeg) {
		return c.cell, nil
	}
	cell, err := At(latDeg, lonDeg, resolution)
	if err != nil {
		return 0, err
	}
	if cell != c.cell {
		if err := c.remember(cell); err != nil {
			return 0, err
		}
	}
	return cell, nil
}

// inside reports whether the position is surely in the remembered cell: it is nearer
// to the centre than inscribedRadius. The chord between two points is
//
//	4 sin²(d/2) = 4 sin²(Δφ/2) + 4 cos φ1 cos φ2 sin²(Δλ/2)
//	            ≤ Δφ² + cos φ1 (cos φ1 + |Δφ|) Δλ²
//
// (haversine formula; |sin x| ≤ |x|; the cosine changes by no more than its
// argument), which needs no trigonometry. It holds for every Δλ, so across the
// antimeridian, where Δλ is about 360°, the answer is only slower.
func (c *Cursor) inside(latDeg, lonDeg float64) bool {
	const radPerDeg = math.Pi / 180
	dLat := math.Abs(latDeg - c.latDeg)
	dLon := lonDeg - c.lonDeg
	chord2 := float64(dLat*dLat) + float64(c.cosLat*(c.cosLat+float64(dLat*radPerDeg))*dLon*dLon)
	return chord2 < c.insideChordDeg2
}

func (c *Cursor) remember(cell Cell) error {
	centre, err := h3.Cell(cell).LatLng()
	if err != nil {
		return fmt.Errorf("centre of H3 cell %s: %w", cell, err)
	}
	r := margin * inscribedRadius(unit(centre), cell.Resolution())
	chordDeg := 2 * math.Sin(r/2) * 180 / math.Pi
	*c = Cursor{
		cell:            cell,
		latDeg:          centre.Lat,
		lonDeg:          centre.Lng,
		cosLat:          math.Cos(centre.Lat * math.Pi / 180),
		insideChordDeg2: chordDeg * chordDeg,
	}
	return nil
}

// inscribedRadius is an angle in radians: what is nearer to a cell's centre is
// in the cell.
//
// H3 projects each face of an icosahedron gnomonically on its plane, where the
// cells of a resolution are equal regular hexagons with the inscribed radius
// ρ = res0Spacing / 2 / √7^resolution. Where a cell crosses a face's edge, it is
// a regular hexagon on the two planes unfolded (they agree along the edge, by
// symmetry); around a vertex of the icosahedron it is a pentagon made of five
// sixths of one. So on the planes the boundary is at least ρ from the centre.
//
// The way back to the sphere shortens lengths most along the radius, by
// 1/(1+tan²θ) = cos²θ at the angle θ from the middle of the face. A point within
// ρ of the centre is at most θ0+ρ from the middle of its own, nearest face,
// where θ0 is the centre's, and never further than a vertex is. So on the sphere
// the boundary is at least ρ cos²(θ0+ρ) from the centre.
func inscribedRadius(centre vector, resolution int) float64 {
	rho := res0Spacing / 2 / math.Pow(7, float64(resolution)/2)
	f := faces()
	nearest := f.vertexCos
	for _, middle := range f.middles {
		nearest = max(nearest, middle.dot(centre))
	}
	theta := min(math.Acos(min(1, nearest))+rho, math.Acos(f.vertexCos))
	cos := math.Cos(theta)
	return rho * cos * cos
}

// icosahedron holds the middles of its faces and the cosine of the angle from
// there to a vertex.
type icosahedron struct {
	middles   []vector
	vertexCos float64
}

// faces derives the icosahedron from H3's pentagons, whose centres are its
// vertices: a face is three vertices that are neighbours of each other.
var faces = sync.OnceValue(func() icosahedron {
	pentagons, err := h3.Pentagons(0)
	if err != nil {
		panic(fmt.Sprintf("H3 pentagons of resolution 0: %v", err))
	}
	var vertices []vector
	for _, p := range pentagons {
		centre, err := p.LatLng()
		if err != nil {
			panic(fmt.Sprintf("centre of H3 pentagon %s: %v", p, err))
		}
		vertices = append(vertices, unit(centre))
	}
	// The cosine of neighbours is 1/√5, of the others -1/√5 or -1.
	neighbours := func(a, b vector) bool { return a.dot(b) > 0 }
	var f icosahedron
	for i, a := range vertices {
		for j, b := range vertices[:i] {
			for _, c := range vertices[:j] {
				if neighbours(a, b) && neighbours(b, c) && neighbours(a, c) {
					sum := vector{a[0] + b[0] + c[0], a[1] + b[1] + c[1], a[2] + b[2] + c[2]}
					length := math.Sqrt(sum.dot(sum))
					middle := vector{sum[0] / length, sum[1] / length, sum[2] / length}
					f.middles = append(f.middles, middle)
					f.vertexCos = middle.dot(a)
				}
			}
		}
	}
	return f
})

type vector [3]float64

func unit(p h3.LatLng) vector {
	sinLat, cosLat := math.Sincos(p.Lat * math.Pi / 180)
	sinLon, cosLon := math.Sincos(p.Lng * math.Pi / 180)
	return vector{cosLat * cosLon, cosLat * sinLon, sinLat}
}

func (v vector) dot(w vector) float64 {
	return float64(v[0]*w[0]) + float64(v[1]*w[1]) + float64(v[2]*w[2])
}
