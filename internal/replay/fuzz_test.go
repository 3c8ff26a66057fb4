package replay

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/schemas/limits"
)

// Whatever is in a file, every row below the header is either sent or counted
// as unreadable, and what is sent can be.
func FuzzRecording(f *testing.F) {
	f.Add([]byte("vehicle_id,unix_ms,lat,lon,accuracy_m,speed_mps,heading_deg\na,1,2,3,4,5,6\na,x,2,3,,,\n"), false)
	f.Add([]byte("\ufefflon,lat,unix_ms,vehicle_id\n\"1\",2,3,a\n1,2\n\"unclosed\n"), true)
	f.Add([]byte("vehicle_id,unix_ms,lat,lon\r\na,9223372036854775807,NaN,-Inf\r\n\r\na,-9223372036854775808,1e400,0x1p-2\r\n"), false)
	f.Fuzz(func(t *testing.T, content []byte, compress bool) {
		name := "x.csv"
		if compress {
			name += ".gz"
			var buf bytes.Buffer
			zw := gzip.NewWriter(&buf)
			_, _ = zw.Write(content)
			require.NoError(t, zw.Close())
			content = buf.Bytes()
		}
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, content, 0o600))
		rec, err := load([]string{path}, "p-")
		if err != nil {
			return
		}
		require.Equal(t, rec.total, int64(len(rec.rows))+sum(rec.unreadable))
		for _, r := range rec.rows {
			require.True(t, limits.ValidVehicleID(rec.vehicles[r.vehicle]))
			require.LessOrEqual(t, rec.firstMS[r.file], r.unixMS)
			require.GreaterOrEqual(t, rec.lastMS[r.file], r.unixMS)
			fix := r.fix(r.unixMS)
			require.Equal(t, r.has&hasSpeed != 0, fix.SpeedMps != nil)
		}
	})
}
