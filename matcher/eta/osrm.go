package eta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/starling-fleet/starling/internal/valid"
)

// OSRM asks the table service of an OSRM server (its HTTP API, version 1). It
// sends one request for every batch of places, one after the other.
type OSRM struct {
	base   string
	client *http.Client
	batch  int
}

const (
	// maxAnswerBytes bounds what is read of an answer.
	maxAnswerBytes = 16 << 20
	// maxErrorBytes bounds what is kept of an answer that cannot be read.
	maxErrorBytes = 200
)

// NewOSRM returns an estimator for a server's base URL, such as
// "http://127.0.0.1:5000", a routing profile, such as "driving", and the
// server's --max-table-size, which counts the destination too. The client's
// timeout bounds one request.
func NewOSRM(base, profile string, maxTable int, client *http.Client) (*OSRM, error) {
	var faults valid.Faults
	u, err := url.Parse(base)
	faults.Need(err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.RawQuery == "" && u.Fragment == "", "osrm_url", base, "http(s)://host[:port][/path]")
	faults.Need(profile != "" && url.PathEscape(profile) == profile, "osrm_profile", profile, "a name without special characters")
	valid.Between(&faults, "osrm_max_table", maxTable, 2, 10_000)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	return &OSRM{base: strings.TrimRight(base, "/") + "/table/v1/" + profile + "/", client: client, batch: maxTable - 1}, nil
}

// Arrivals implements Estimator. An error names the server's code if it sent
// one.
func (o *OSRM) Arrivals(ctx context.Context, from []Place, to Place) ([]time.Duration, error) {
	out := make([]time.Duration, 0, len(from))
	for len(from) > 0 {
		n := min(len(from), o.batch)
		times, err := o.table(ctx, from[:n], to)
		if err != nil {
			return nil, fmt.Errorf("ask OSRM for %d travel times: %w", n, err)
		}
		out, from = append(out, times...), from[n:]
	}
	return out, nil
}

// table asks for the column of travel times to one destination.
func (o *OSRM) table(ctx context.Context, from []Place, to Place) ([]time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.url(from, to), nil)
	if err != nil {
		return nil, err
	}
	resp, err := o.client.Do(req)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return nil, failed.Err // without the URL, which is long and shows where the fleet is
	} else if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxAnswerBytes {
		return nil, fmt.Errorf("the answer has more than %d bytes", maxAnswerBytes)
	}
	return durations(resp.Status, body, len(from))
}

// url names all places, longitude first, and asks for the times from all but
// the last to the last.
func (o *OSRM) url(from []Place, to Place) string {
	var b, sources strings.Builder
	b.WriteString(o.base)
	for i, p := range from {
		writePlace(&b, p)
		b.WriteByte(';')
		if i > 0 {
			sources.WriteByte(';')
		}
		sources.WriteString(strconv.Itoa(i))
	}
	writePlace(&b, to)
	return b.String() + "?annotations=duration&sources=" + sources.String() + "&destinations=" + strconv.Itoa(len(from))
}

// writePlace writes a place to the centimetre.
func writePlace(b *strings.Builder, p Place) {
	b.WriteString(strconv.FormatFloat(p.LonDeg, 'f', 7, 64))
	b.WriteByte(',')
	b.WriteString(strconv.FormatFloat(p.LatDeg, 'f', 7, 64))
}

// durations reads an answer: {"code":"Ok","durations":[[seconds or null],...]}
// or {"code":"...","message":"..."}.
func durations(httpStatus string, body []byte, want int) ([]time.Duration, error) {
	var answer struct {
		Code, Message string
		Durations     [][]*float64
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Code == "" {
		return nil, fmt.Errorf("not an OSRM answer (HTTP status %s): %.*q", httpStatus, maxErrorBytes, body)
	}
	if answer.Code != "Ok" {
		return nil, fmt.Errorf("code %s: %s", answer.Code, answer.Message)
	}
	if len(answer.Durations) != want {
		return nil, fmt.Errorf("%d rows of travel times, %d were asked for", len(answer.Durations), want)
	}
	out := make([]time.Duration, want)
	for i, row := range answer.Durations {
		switch {
		case len(row) != 1:
			return nil, fmt.Errorf("%d travel times in row %d, 1 was asked for", len(row), i)
		case row[0] == nil:
			out[i] = Unreachable
		case !(*row[0] >= 0 && *row[0] < math.MaxInt64/float64(2*time.Second)):
			return nil, fmt.Errorf("travel time of %v s in row %d", *row[0], i)
		default:
			out[i] = time.Duration(*row[0] * float64(time.Second))
		}
	}
	return out, nil
}
