package filtercsv_test

import (
	"encoding/csv"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/filtercsv"
)

const header = "vehicle_id,unix_ms,lat,lon,accuracy_m,speed_mps,heading_deg\n"

func filter(t *testing.T, input string) (rows []map[string]string, complaints string, sum filtercsv.Summary) {
	t.Helper()
	var out, errs strings.Builder
	sum, err := filtercsv.Run(strings.NewReader(input), &out, filtercsv.Options{Errors: &errs})
	require.NoError(t, err)
	recs, err := csv.NewReader(strings.NewReader(out.String())).ReadAll()
	require.NoError(t, err)
	require.Equal(t, filtercsv.Header, recs[0])
	for _, rec := range recs[1:] {
		row := map[string]string{}
		for i, h := range recs[0] {
			row[h] = rec[i]
		}
		rows = append(rows, row)
	}
	return rows, errs.String(), sum
}

func TestOneRowOutForEachRowIn(t *testing.T) {
	rows, complaints, sum := filter(t, header+
		"a,1000,52.5,13.4,5,10,90\n"+
		"b,1000,48.1,11.5,,,\n"+
		"a,2000,52.5,13.40015,5,10,90\n"+
		"a,2000,52.5,13.40015,5,10,90\n"+
		"a,2000,52.6,13.40015,5,10,90\n"+
		"a,x,52.5,13.4,5,10,90\n"+
		"a,3000,91,13.4,5,10,90\n"+
		"a,3000,52.5,13.4,-1,10,90\n"+
		"a,3000,0,0,,,\n"+
		"a,3000\n"+
		"\"a\"x,3000,52.5,13.4,,,\n"+
		"a,40000,52.5,13.40587,5,10,90\n"+
		"a,3000,52.5,13.4003,5,10,90\n")
	verdicts := make([]string, len(rows))
	for i, r := range rows {
		verdicts[i] = r["verdict"]
	}
	require.Equal(t, []string{"warming_up", "warming_up", "accepted", "duplicate", "conflict",
		"refused", "refused", "refused", "refused", "refused", "refused", "accepted", "late"}, verdicts)
	require.Equal(t, filtercsv.Summary{Rows: 13, Refused: 6, Duplicate: 1, Conflict: 1, Late: 1}, sum)
	require.Equal(t, "2000", rows[6]["live_unix_ms"], "a refused row shows the live position as it stands")
	require.Equal(t, "40000", rows[12]["live_unix_ms"])
	require.Equal(t, rows[11]["live_lon"], rows[12]["live_lon"])
	lines := strings.Split(strings.TrimSpace(complaints), "\n")
	require.Len(t, lines, 6)
	require.Equal(t, `line 7: unix_ms: "x" is not a positive whole number of milliseconds`, lines[0])
	require.Equal(t, `line 8: lat: "91" is not a number within [-90, 90]`, lines[1])
	require.Equal(t, `line 9: accuracy_m: "-1" is not a number within [0, 1e+07]`, lines[2])
	require.Contains(t, lines[3], "line 10: lat, lon: 0, 0")
	require.Contains(t, lines[4], "line 11: lat")
	require.Contains(t, lines[5], "line 12: ")
}

// Rows within the window count as if they had come in order, whatever order
// they came in.
func TestOrderOfArrivalDoesNotMatterWithinTheWindow(t *testing.T) {
	fixes := []string{
		"a,1000,52.5,13.40000,5,10,90\n",
		"a,2000,52.5,13.40015,5,10,90\n",
		"a,3000,52.5,13.40031,5,10,90\n",
		"a,4000,52.5,13.40044,5,10,90\n",
		"a,5000,52.5,13.40059,5,10,90\n",
	}
	want, _, _ := filter(t, header+strings.Join(fixes, ""))
	for _, order := range [][]int{{4, 3, 2, 1, 0}, {0, 2, 1, 4, 3}, {3, 0, 4, 1, 2}} {
		input := header
		for _, i := range order {
			input += fixes[i]
		}
		got, _, _ := filter(t, input)
		last, wantLast := got[4], want[4]
		for _, c := range []string{"live_unix_ms", "live_lat", "live_lon", "live_speed_mps", "live_heading_deg", "live_var_east_m2"} {
			require.Equal(t, wantLast[c], last[c], "%s in order %v", c, order)
		}
	}
}

func TestHeader(t *testing.T) {
	_, err := filtercsv.Run(strings.NewReader("unix_ms,lat\n"), &strings.Builder{}, filtercsv.Options{})
	require.ErrorContains(t, err, `column "vehicle_id" is missing`)
	require.ErrorContains(t, err, `column "lon" is missing`)
	_, err = filtercsv.Run(strings.NewReader(""), &strings.Builder{}, filtercsv.Options{})
	require.ErrorContains(t, err, "read header")

	var out strings.Builder
	_, err = filtercsv.Run(strings.NewReader("lon,lat,other,unix_ms,vehicle_id\n13.4,52.5,x,1000,a\n"), &out, filtercsv.Options{})
	require.NoError(t, err)
	require.Contains(t, out.String(), "a,1000,1000,52.500000000,13.400000000,")
}

type failing struct{ left int }

func (f *failing) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errDisk
	}
	return len(p), nil
}

var errDisk = &diskError{}

type diskError struct{}

func (*diskError) Error() string { return "no space left" }

func TestWriteFailureIsTold(t *testing.T) {
	_, err := filtercsv.Run(strings.NewReader(header+"a,1000,52.5,13.4,,,\n"), &failing{}, filtercsv.Options{})
	require.ErrorIs(t, err, errDisk)
}

// Both positions are there, and a heading just below 360 is not rounded up to it.
func TestDisplayPositionAndHeadingColumns(t *testing.T) {
	input := header
	for i := range 40 {
		input += fmt.Sprintf("a,%d,%.7f,13.4,5,10,359.99999\n", 1000*(i+1), 52.5+float64(i)*9e-5)
	}
	rows, complaints, _ := filter(t, input)
	require.Empty(t, complaints)
	for i, row := range rows {
		require.NotEmpty(t, row["display_lat"])
		require.NotEmpty(t, row["display_lon"])
		require.False(t, strings.HasPrefix(row["live_heading_deg"], "360"), "row %d: %s", i, row["live_heading_deg"])
	}
	require.Equal(t, "0.000", rows[39]["live_heading_deg"])
	require.Less(t, rows[39]["display_lat"], rows[39]["live_lat"], "the display position trails")
}
