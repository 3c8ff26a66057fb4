package eta_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/matcher/eta"
)

func TestGreatCircle(t *testing.T) {
	g, err := eta.NewGreatCircle(10, 1.3)
	require.NoError(t, err)
	got, err := g.Arrivals(context.Background(), []eta.Place{{1, 0}, {0, 0}, {0, 180}}, eta.Place{})
	require.NoError(t, err)
	require.InDelta(t, 111195.08*1.3/10, got[0].Seconds(), 0.01)
	require.Zero(t, got[1])
	require.InDelta(t, math.Pi*6371008.8*1.3/10, got[2].Seconds(), 0.01)

	for _, c := range [][2]float64{{0, 1}, {-1, 1}, {math.NaN(), 1}, {10, 0.9}, {10, math.Inf(1)}} {
		_, err := eta.NewGreatCircle(c[0], c[1])
		require.Error(t, err, "%v", c)
	}
}

// standIn speaks the documented format of OSRM's table service: a trip takes a
// second for every degree of longitude, and none leads from the south.
func standIn(t *testing.T, maxTable int) (*httptest.Server, *int) {
	requests := new(int)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*requests++
		fail := func(code string) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"code":%q,"message":"as asked"}`, code)
		}
		list, ok := strings.CutPrefix(r.URL.Path, "/table/v1/driving/")
		if !ok {
			fail("InvalidService")
			return
		}
		var lon, lat []float64
		for _, p := range strings.Split(list, ";") {
			x, y, _ := strings.Cut(p, ",")
			fx, err := strconv.ParseFloat(x, 64)
			require.NoError(t, err)
			fy, err := strconv.ParseFloat(y, 64)
			require.NoError(t, err)
			lon, lat = append(lon, fx), append(lat, fy)
		}
		if len(lon) > maxTable {
			fail("TooBig")
			return
		}
		// OSRM separates by semicolons, which net/url does not take in a query.
		query := map[string]string{}
		for _, pair := range strings.Split(r.URL.RawQuery, "&") {
			key, value, _ := strings.Cut(pair, "=")
			query[key] = value
		}
		require.Equal(t, "duration", query["annotations"])
		pick := func(key string) (out []int) {
			for _, i := range strings.Split(query[key], ";") {
				n, err := strconv.Atoi(i)
				require.NoError(t, err)
				out = append(out, n)
			}
			return out
		}
		answer := map[string]any{"code": "Ok"}
		var rows [][]any
		for _, from := range pick("sources") {
			var row []any
			for _, to := range pick("destinations") {
				if lat[from] < 0 {
					row = append(row, nil)
				} else {
					row = append(row, math.Abs(lon[from]-lon[to]))
				}
			}
			rows = append(rows, row)
		}
		answer["durations"] = rows
		require.NoError(t, json.NewEncoder(w).Encode(answer))
	}))
	t.Cleanup(s.Close)
	return s, requests
}

func TestOSRM(t *testing.T) {
	s, requests := standIn(t, 100)
	o, err := eta.NewOSRM(s.URL+"/", "driving", 100, s.Client())
	require.NoError(t, err)
	var from []eta.Place
	for i := range 250 {
		from = append(from, eta.Place{LatDeg: 1, LonDeg: float64(i) / 4})
	}
	from[7].LatDeg = -1
	got, err := o.Arrivals(context.Background(), from, eta.Place{LatDeg: 2, LonDeg: -3})
	require.NoError(t, err)
	require.Equal(t, 3, *requests, "99 vehicles and the destination a request")
	for i := range from {
		want := time.Duration((float64(i)/4 + 3) * float64(time.Second))
		if i == 7 {
			want = eta.Unreachable
		}
		require.Equal(t, want, got[i], "vehicle %d", i)
	}
	got, err = o.Arrivals(context.Background(), nil, eta.Place{})
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestOSRMFailures(t *testing.T) {
	small, _ := standIn(t, 10)
	o, err := eta.NewOSRM(small.URL, "driving", 100, small.Client())
	require.NoError(t, err)
	_, err = o.Arrivals(context.Background(), make([]eta.Place, 20), eta.Place{})
	require.ErrorContains(t, err, "code TooBig: as asked")

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = o.Arrivals(ctx, make([]eta.Place, 2), eta.Place{})
	require.ErrorIs(t, err, context.Canceled)

	for want, body := range map[string]string{
		"not an OSRM answer":    "<html>gateway</html>",
		"not an OSRM answer (":  `{}`,
		"1 rows of travel time": `{"code":"Ok","durations":[[1]]}`,
		"2 travel times in row": `{"code":"Ok","durations":[[1],[1,2]]}`,
		"travel time of -1 s":   `{"code":"Ok","durations":[[1],[-1]]}`,
		"travel time of 1e+300": `{"code":"Ok","durations":[[1],[1e300]]}`,
		"more than 16777216":    strings.Repeat("x", 16<<20+1),
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }))
		o, err := eta.NewOSRM(s.URL, "driving", 100, s.Client())
		require.NoError(t, err)
		_, err = o.Arrivals(context.Background(), make([]eta.Place, 2), eta.Place{})
		require.ErrorContains(t, err, want)
		s.Close()
	}
}

func TestNewOSRMRefuses(t *testing.T) {
	for _, c := range []struct {
		base, profile string
		table         int
		want          string
	}{
		{"ftp://host", "driving", 100, "osrm_url"},
		{"http://", "driving", 100, "osrm_url"},
		{"http://host?x=1", "driving", 100, "osrm_url"},
		{"http://host", "", 100, "osrm_profile"},
		{"http://host", "a/b", 100, "osrm_profile"},
		{"http://host", "driving", 1, "osrm_max_table"},
	} {
		_, err := eta.NewOSRM(c.base, c.profile, c.table, http.DefaultClient)
		require.ErrorContains(t, err, c.want)
	}
}

// slow is an estimator that answers what a test wants.
type slow []time.Duration

func (s slow) Arrivals(context.Context, []eta.Place, eta.Place) ([]time.Duration, error) {
	return s, nil
}

func TestRankIsStableAndLeavesOutWhoCannotGetThere(t *testing.T) {
	times := slow{3, eta.Unreachable, 1, 3, 2}
	got, err := eta.Rank(t.Context(), times, make([]eta.Place, 5), eta.Place{}, 3)
	require.NoError(t, err)
	require.Equal(t, []eta.Arrival{{Index: 2, Travel: 1}, {Index: 4, Travel: 2}, {Index: 0, Travel: 3}}, got)
	got, err = eta.Rank(t.Context(), times, make([]eta.Place, 5), eta.Place{}, 9)
	require.NoError(t, err)
	require.Len(t, got, 4)
	require.Equal(t, 3, got[3].Index)
	require.Equal(t, []int{50, 80, 1000}, []int{eta.Compared(1, 1000), eta.Compared(20, 1000), eta.Compared(400, 1000)})
}
