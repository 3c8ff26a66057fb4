package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/schemas/openapi"
)

// report is the JSON of a report with one fix, taken now.
func report(id string, sequence int, lat, lon float64) string {
	return fmt.Sprintf(`{"report": {"vehicleId": %q, "sessionId": "18446744073709551615", "sequence": "%d",
		"fixes": [{"deviceTimeMs": "%d", "latitude": %g, "longitude": %g, "accuracyM": 5}],
		"availability": "AVAILABILITY_FREE", "attributes": {"type": "van", "seats": 4}}}`,
		id, sequence, time.Now().UnixMilli(), lat, lon)
}

// report sends a report of a vehicle and waits until the fleet has it there.
func (p *process) report(id string, sequence int, lat, lon float64) {
	p.t.Helper()
	a := p.do("/v1/reports:send", report(id, sequence, lat, lon))
	require.Equal(p.t, http.StatusOK, a.status, "%s", a.body)
	require.Equal(p.t, map[string]any{"acknowledgedSequence": fmt.Sprint(sequence), "refusals": []any{}}, a.object(p.t), "64-bit numbers are strings")
	require.Eventually(p.t, func() bool {
		v := p.do("/v1/vehicles/"+id, "")
		return v.status == http.StatusOK && at(p.t, v.object(p.t), "fixCounts", "accepted") == fmt.Sprint(sequence)
	}, patience, 5*time.Millisecond)
}

func TestEveryMethodAsJSON(t *testing.T) {
	p := start(t)
	p.report("van-1", 1, 48.2, 16.37)
	p.report("van-2", 1, 48.3, 16.37)

	t.Run("GetVehicle", func(t *testing.T) {
		a := p.do("/v1/vehicles/van-1", "")
		require.Equal(t, "application/json", a.header.Get("Content-Type"))
		v := a.object(t)
		require.Equal(t, "vehicles/van-1", at(t, v, "name"))
		require.Equal(t, 48.2, at(t, v, "position", "latitude"))
		require.Equal(t, "AVAILABILITY_FREE", at(t, v, "availability"))
		require.Equal(t, 4.0, at(t, v, "attributes", "seats"))
		require.NotContains(t, v, "speedMps", "what is not known is left out")
	})
	t.Run("ListVehicles", func(t *testing.T) {
		first := p.do("/v1/vehicles?page_size=1", "").object(t)
		require.Equal(t, "vehicles/van-1", at(t, first, "vehicles", 0, "name"))
		token, _ := at(t, first, "nextPageToken").(string)
		second := p.do("/v1/vehicles?pageSize=1&pageToken="+url.QueryEscape(token), "").object(t)
		require.Equal(t, "vehicles/van-2", at(t, second, "vehicles", 0, "name"))
	})
	t.Run("SearchNearest", func(t *testing.T) {
		posted := p.do("/v1/vehicles:searchNearest", `{"place": {"latitude": 48.31, "longitude": 16.37}, "maxResults": 2, "filter": {"types": ["van"]}}`).object(t)
		got := p.do("/v1/vehicles:searchNearest?place.latitude=48.31&place.longitude=16.37&max_results=2&filter.types=van", "").object(t)
		for _, v := range []map[string]any{posted, got} {
			require.Equal(t, "vehicles/van-2", at(t, v, "results", 0, "vehicle", "name"))
			require.InDelta(t, 1112, at(t, v, "results", 0, "distanceM"), 1)
			require.Equal(t, "vehicles/van-1", at(t, v, "results", 1, "vehicle", "name"))
		}
		require.Equal(t, map[string]any{"results": []any{}, "stalePartitions": []any{}}, p.do("/v1/vehicles:searchNearest?place.latitude=48.31&place.longitude=16.37&filter.types=bus", "").object(t))
	})
	t.Run("SearchArea", func(t *testing.T) {
		v := p.do("/v1/vehicles:searchArea", `{"area": {"polygon": {"vertices": [
			{"latitude": 48.1, "longitude": 16}, {"latitude": 48.1, "longitude": 17}, {"latitude": 48.25, "longitude": 16.5}, {"latitude": 48.25, "longitude": 16}]}}}`).object(t)
		require.Equal(t, 1.0, at(t, v, "totalCount"))
		require.Equal(t, "vehicles/van-1", at(t, v, "vehicles", 0, "name"))
		v = p.do("/v1/vehicles:searchArea?"+viewport(48, 49), "").object(t)
		require.Equal(t, 2.0, at(t, v, "totalCount"))
	})
	t.Run("CountVehicles", func(t *testing.T) {
		v := p.do("/v1/vehicles:count?selection.availabilities=AVAILABILITY_FREE", "").object(t)
		require.Equal(t, 2.0, at(t, v, "cells", 0, "totalCount"), "both are in one cell of resolution 0")
		require.Equal(t, 2.0, at(t, v, "cells", 0, "freeCount"))
	})
	t.Run("WatchVehicleCounts", func(t *testing.T) {
		first := p.watch("/v1/vehicles:watchCounts?min_interval=0.05s", "*/*").next()
		require.Equal(t, true, at(t, first, "result", "snapshot"))
	})
	t.Run("WatchVehicle", func(t *testing.T) {
		w := p.watch("/v1/vehicles/van-1:watch", "application/json")
		require.Equal(t, "application/x-ndjson", w.header.Get("Content-Type"))
		require.Equal(t, "vehicles/van-1", at(t, w.next(), "result", "vehicle", "name"))
		p.report("van-1", 2, 48.2001, 16.37)
		for at(t, w.next(), "result", "vehicle", "fixCounts", "accepted") != "2" {
		}
	})
	t.Run("WatchArea as server-sent events", func(t *testing.T) {
		w := p.watch("/v1/vehicles:watchArea?min_interval=0.05s&"+viewport(48.25, 49), "text/event-stream")
		require.Equal(t, "text/event-stream", w.header.Get("Content-Type"))
		first := w.next()
		require.Equal(t, true, at(t, first, "result", "snapshot"))
		require.Equal(t, "vehicles/van-2", at(t, first, "result", "changed", 0, "name"))
		p.report("van-3", 1, 48.4, 16.5)
		for at(t, w.next(), "result", "changed", 0, "name") != "vehicles/van-3" {
		}
	})
}

func viewport(south, north float64) string {
	return fmt.Sprintf("area.viewport.southwest.latitude=%g&area.viewport.southwest.longitude=16"+
		"&area.viewport.northeast.latitude=%g&area.viewport.northeast.longitude=17", south, north)
}

// watching reads the messages of a stream as they come.
type watching struct {
	t      *testing.T
	header http.Header
	lines  *bufio.Scanner
	events bool
	cancel context.CancelFunc
}

func (p *process) watch(path, accept string) *watching {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	p.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+path, nil)
	require.NoError(p.t, err)
	req.Header.Set("Accept", accept)
	// It is not for a proxy's or our own buffer to keep messages back.
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(p.t, err)
	p.t.Cleanup(func() { resp.Body.Close() })
	require.Equal(p.t, http.StatusOK, resp.StatusCode)
	require.Empty(p.t, resp.Header.Get("Content-Encoding"))
	return &watching{p.t, resp.Header, bufio.NewScanner(resp.Body), accept == "text/event-stream", cancel}
}

// next is the next message, which must come.
func (w *watching) next() map[string]any {
	w.t.Helper()
	require.True(w.t, w.lines.Scan(), "the stream ended: %v", w.lines.Err())
	line := w.lines.Bytes()
	if w.events {
		data, is := bytes.CutPrefix(line, []byte("data: "))
		require.True(w.t, is, "%s", line)
		line = bytes.Clone(data)
		require.True(w.t, w.lines.Scan())
		require.Empty(w.t, w.lines.Bytes(), "a blank line ends an event")
	}
	var v map[string]any
	require.NoError(w.t, json.Unmarshal(line, &v), "%s", line)
	return v
}

// What is refused names the field and the rule, whichever part refuses it.
func TestBadInputNamesTheField(t *testing.T) {
	p := start(t)
	for _, c := range []struct{ path, body, field, rule string }{
		// The gateway's own.
		{"/v1/vehicles:searchNearest", `{"place": {"latitude": 1, "longitude": 2}, "filter": {"tagz": ["a"]}}`, "filter.tagz", "unknown field"},
		{"/v1/vehicles:searchNearest", `{"place": {"latitude": "abc"}}`, "place.latitude", "invalid value for double"},
		{"/v1/vehicles:searchNearest", `{"place": {"latitude": 1, "latitude": 2}}`, "place.latitude", "duplicate field"},
		{"/v1/vehicles:searchNearest", `{"maxResults": 1e10}`, "maxResults", "invalid value for int32"},
		{"/v1/vehicles:searchNearest", `{"ranking": "RANKING_BY_SMELL"}`, "ranking", "invalid value for enum"},
		{"/v1/vehicles:searchNearest", `[1]`, "body", "unexpected token"},
		{"/v1/vehicles:searchNearest", `{"place": {"latitude": `, "place.latitude", "EOF"},
		{"/v1/vehicles:searchNearest", `{} {}`, "body", "unexpected token"},
		{"/v1/vehicles:searchArea", `{"area": {"viewport": {}, "cells": {}}}`, "area.cells", "already set"},
		{"/v1/vehicles:searchArea", "{\"area\": {\n \"polygon\": {\"vertices\": [{}, {\"latitude\": 1, \"höhe\": 3}]}}}", "area.polygon.vertices[1].höhe", "unknown field"},
		{"/v1/reports:send", `{"report": {"fixes": [{}, {"longitude": true}]}}`, "report.fixes[1].longitude", "invalid value for double"},
		{"/v1/reports:send", `{"report": {"sessionId": -1}}`, "report.sessionId", "invalid value for fixed64"},
		{"/v1/vehicles:searchNearest?place.latitude=1", `{}`, "place.latitude", "parameters in the body"},
		{"/v1/vehicles:searchNearest?place.latitude=1&place.longitud=2", "", "place.longitud", "unknown parameter"},
		{"/v1/vehicles:searchNearest?place.latitude=north", "", "place.latitude", "invalid syntax"},
		{"/v1/vehicles:searchNearest?place.latitude=1&place.latitude=2", "", "place.latitude", "too many values"},
		{"/v1/vehicles:searchNearest?max_results=1&maxResults=2", "", "max_results", "same as maxResults"},
		{"/v1/vehicles/a?name=vehicles/b", "", "name", "given by the path"},
		{"/v1/vehicles?pageSize=1&page.size=2", "", "page.size", "unknown parameter"},
		// The services'.
		{"/v1/vehicles:searchNearest", `{"place": {"latitude": 91, "longitude": 2}}`, "place.latitude", "between -90 and 90"},
		{"/v1/vehicles:watchArea", `{}`, "area", "viewport"},
		{"/v1/vehicles:watchArea?min_interval=1h&" + viewport(1, 2), "", "min_interval", "must be"},
		{"/v1/vehicles/%20:watch", "", "name", ""},
		{"/v1/reports:send", `{"report": {"sessionId": 1, "sequence": 1, "availability": 1}}`, "vehicle_id", ""},
		{"/v1/reports:send", ` `, "report", ""},
	} {
		t.Run(c.path+" "+c.body, func(t *testing.T) {
			a := p.do(c.path, c.body)
			require.Equal(t, http.StatusBadRequest, a.status, "%s", a.body)
			require.Equal(t, "application/json", a.header.Get("Content-Type"))
			st := status.FromProto(statusOf(t, a.body))
			require.Equal(t, codes.InvalidArgument, st.Code())
			var bad *errdetails.BadRequest
			for _, d := range st.Details() {
				if b, ok := d.(*errdetails.BadRequest); ok {
					bad = b
				}
			}
			require.NotNil(t, bad, "%s", a.body)
			require.Contains(t, bad.FieldViolations[0].Field, c.field)
			require.Contains(t, bad.FieldViolations[0].Description, c.rule)
			require.NotContains(t, string(a.body), `\u0000`)
		})
	}
}

func TestErrorsAndTheirHTTPStatus(t *testing.T) {
	p := start(t, func(cfg *app.Config) { cfg.JSON.MaxBodyBytes = 2048 })
	with := func(key, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(key, value) }
	}
	method := func(m string) func(*http.Request) { return func(r *http.Request) { r.Method = m } }
	for _, c := range []struct {
		name, path, body string
		change           func(*http.Request)
		status           int
		code             codes.Code
		reason           string
	}{
		{"unknown vehicle", "/v1/vehicles/nobody", "", nil, 404, codes.NotFound, "VEHICLE_NOT_FOUND"},
		{"unknown path", "/v1/vehicle", "", nil, 404, codes.NotFound, "NO_SUCH_PATH"},
		{"wrong method", "/v1/reports:send", "", nil, 405, codes.Unimplemented, "METHOD_NOT_ALLOWED"},
		{"DELETE", "/v1/vehicles/a", "", method("DELETE"), 405, codes.Unimplemented, "METHOD_NOT_ALLOWED"},
		{"method override", "/v1/vehicles/a", "{}", with("X-HTTP-Method-Override", "GET"), 405, codes.Unimplemented, "METHOD_NOT_ALLOWED"},
		{"form", "/v1/reports:send", "a=b", with("Content-Type", "application/x-www-form-urlencoded"), 415, codes.InvalidArgument, "CONTENT_TYPE_NOT_JSON"},
		{"text", "/v1/reports:send", "{}", with("Content-Type", "text/plain"), 415, codes.InvalidArgument, "CONTENT_TYPE_NOT_JSON"},
		{"compressed", "/v1/reports:send", "{}", with("Content-Encoding", "gzip"), 415, codes.InvalidArgument, "CONTENT_TYPE_NOT_JSON"},
		{"oversize", "/v1/vehicles:searchNearest", `{"place": {}` + strings.Repeat(" ", 2048) + "}", nil, 413, codes.InvalidArgument, "BODY_TOO_LARGE"},
		{"oversize of unknown length", "/v1/vehicles:searchNearest", strings.Repeat(" ", 2049), func(r *http.Request) { r.ContentLength = -1 }, 413, codes.InvalidArgument, "BODY_TOO_LARGE"},
		{"body of a GET", "/v1/vehicles", "{}", method("GET"), 400, codes.InvalidArgument, "INVALID_REQUEST"},
		{"timeout that is none", "/v1/vehicles", "", with("Grpc-Timeout", "soon"), 400, codes.InvalidArgument, "INVALID_REQUEST"},
		{"timeout of nothing", "/v1/vehicles", "", with("Grpc-Timeout", "0S"), 400, codes.InvalidArgument, "INVALID_REQUEST"},
		{"negative timeout", "/v1/vehicles", "", with("Grpc-Timeout", "-5S"), 400, codes.InvalidArgument, "INVALID_REQUEST"},
		{"timeout that is over", "/v1/vehicles/a", "", with("Grpc-Timeout", "1n"), 504, codes.DeadlineExceeded, "CALL_TIMEOUT"},
		{"PUT with a body", "/v1/vehicles", "{}", method("PUT"), 405, codes.Unimplemented, "METHOD_NOT_ALLOWED"},
		{"POST to the document", "/openapi.json", "{}", nil, 405, codes.Unimplemented, "METHOD_NOT_ALLOWED"},
		{"a vehicle that clients can't name", "/v1/vehicles/%2e%2e", "", nil, 400, codes.InvalidArgument, "INVALID_REQUEST"},
	} {
		t.Run(c.name, func(t *testing.T) {
			change := []func(*http.Request){}
			if c.change != nil {
				change = append(change, c.change)
			}
			a := p.do(c.path, c.body, change...)
			require.Equal(t, c.status, a.status, "%s", a.body)
			st := status.FromProto(statusOf(t, a.body))
			require.Equal(t, c.code, st.Code())
			require.NotEmpty(t, st.Details())
			info, ok := st.Details()[0].(*errdetails.ErrorInfo)
			require.True(t, ok)
			require.Equal(t, c.reason, info.Reason)
		})
	}
}

// A watch that is under way when the process stops is answered why, in its own form.
func TestStopEndsWatchesWithAStatus(t *testing.T) {
	p := start(t)
	p.report("a", 1, 10, 10)
	w := p.watch("/v1/vehicles/a:watch", "*/*")
	w.next()
	p.stop()
	var last map[string]any
	for w.lines.Scan() {
		last = nil
		require.NoError(t, json.Unmarshal(w.lines.Bytes(), &last))
	}
	require.NoError(t, w.lines.Err(), "the stream is ended, not cut off")
	require.Equal(t, float64(codes.Unavailable), at(t, last, "error", "code"))
	_, err := net.Dial("tcp", p.JSONAddr())
	require.Error(t, err, "the gateway is closed")
}

func TestCORSIsOffUnlessConfigured(t *testing.T) {
	const page = "https://map.example.com"
	from := func(origin string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Origin", origin) }
	}
	preflight := func(r *http.Request) {
		r.Method = http.MethodOptions
		r.Header.Set("Access-Control-Request-Method", "POST")
		r.Header.Set("Access-Control-Request-Headers", "authorization,content-type")
	}
	const allowed = "Access-Control-Allow-Origin"

	off := start(t)
	a := off.do("/v1/vehicles", "", from(page))
	require.Equal(t, http.StatusOK, a.status)
	require.NotContains(t, a.header, allowed)
	a = off.do("/v1/reports:send", "", from(page), preflight)
	require.Equal(t, http.StatusMethodNotAllowed, a.status)
	require.NotContains(t, a.header, allowed)

	on := start(t, func(cfg *app.Config) { cfg.JSON.AllowOrigins = []string{page} })
	a = on.do("/v1/vehicles", "", from(page))
	require.Equal(t, page, a.header.Get(allowed))
	require.Empty(t, a.header.Get("Access-Control-Allow-Credentials"))
	a = on.do("/v1/reports:send", "", from(page), preflight)
	require.Equal(t, page, a.header.Get(allowed))
	require.Contains(t, strings.ToLower(a.header.Get("Access-Control-Allow-Headers")), "authorization")
	for _, other := range []string{"https://evil.example.com", "http://map.example.com", "null"} {
		require.NotContains(t, on.do("/v1/vehicles", "", from(other)).header, allowed)
		require.NotContains(t, on.do("/v1/reports:send", "", from(other), preflight).header, allowed)
	}
	// A refusal is readable for the page too.
	require.Equal(t, page, on.do("/v1/nothing", "", from(page)).header.Get(allowed))
}

func TestTheDocumentIsServed(t *testing.T) {
	p := start(t)
	a := p.do("/openapi.json", "")
	require.Equal(t, http.StatusOK, a.status)
	require.Equal(t, openapi.Document, a.body)
}

func TestAnswersAreCompressedOnRequest(t *testing.T) {
	p := start(t)
	a := p.do("/openapi.json", "", func(r *http.Request) { r.Header.Set("Accept-Encoding", "gzip") })
	require.Equal(t, "gzip", a.header.Get("Content-Encoding"))
	require.Less(t, len(a.body), len(openapi.Document)/2)
}

// In development mode everybody is let in, so that the Host of a web page elsewhere
// (DNS rebinding) is not answered.
func TestDevelopmentModeAnswersToLoopbackOnly(t *testing.T) {
	p := start(t)
	host := func(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }
	for _, name := range []string{"localhost", "localhost:7603", "127.0.0.1", "[::1]:7603"} {
		require.Equal(t, http.StatusOK, p.do("/v1/vehicles", "", host(name)).status, name)
	}
	for _, name := range []string{"evil.example", "evil.example:7603", "10.0.0.1", "localhost.evil.example"} {
		got := p.do("/v1/vehicles", "", host(name))
		require.Equal(t, http.StatusMisdirectedRequest, got.status, name)
		require.Equal(t, "UNKNOWN_HOST", at(t, got.object(t), "details", 0, "reason"))
	}
}
