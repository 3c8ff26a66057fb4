package lake

import (
	"encoding/binary"
	"encoding/json"
	"math"

	"github.com/starling-fleet/starling/history/row"
)

// wkbBytes is the size of a point in well-known binary: byte order, type, x, y.
const wkbBytes = 1 + 4 + 8 + 8

// putPoint writes a position as well-known binary. Its degrees are multiples of
// 2^-24: half of the bits of each are zero then and compress, and the error is
// below 4 mm, less than half of the integer columns' unit.
func putPoint(b *[wkbBytes]byte, p row.Position) {
	b[0] = 1 // little-endian
	binary.LittleEndian.PutUint32(b[1:], 1)
	binary.LittleEndian.PutUint64(b[5:], math.Float64bits(dyadic(p.LonE7)))
	binary.LittleEndian.PutUint64(b[13:], math.Float64bits(dyadic(p.LatE7)))
}

func dyadic(e7 int32) float64 { return math.Round(float64(e7)*(1<<24)/1e7) / (1 << 24) }

// bounds are the least and the greatest longitude and latitude, as GeoParquet has them.
type bounds [4]float64

// noBounds are those of no point.
var noBounds = bounds{180, 90, -180, -90}

func (b *bounds) add(p row.Position) {
	lon, lat := dyadic(p.LonE7), dyadic(p.LatE7)
	*b = bounds{min(b[0], lon), min(b[1], lat), max(b[2], lon), max(b[3], lat)}
}

// geoMetadata is the value of the key "geo" by GeoParquet 1.1. Without a crs the
// coordinates are longitude and latitude on WGS84 (OGC:CRS84).
func geoMetadata(b bounds) (string, error) {
	type column struct {
		Encoding      string   `json:"encoding"`
		GeometryTypes []string `json:"geometry_types"`
		BBox          bounds   `json:"bbox"`
	}
	text, err := json.Marshal(struct {
		Version       string            `json:"version"`
		PrimaryColumn string            `json:"primary_column"`
		Columns       map[string]column `json:"columns"`
	}{"1.1.0", "geometry", map[string]column{"geometry": {"WKB", []string{"Point"}, b}}})
	return string(text), err
}
