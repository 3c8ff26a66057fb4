package hostile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// attack is one row of the table.
type attack struct {
	name, before string
	maxBytes     int64
	maxCPU       time.Duration
	maxPerCall   time.Duration
	maxTook      time.Duration
	// long attacks are left out of the short form.
	long bool
	// front: a fan-out before the matcher is attacked, and measured with it.
	front bool
	// run attacks, waits for the server to end what it has to end, and describes
	// both.
	run func(ctx context.Context, a *assault) (what string, err error)
}

// assault is an attack under way.
type assault struct {
	*target
	short   bool
	perCall time.Duration
	raws    []*raw
	others  []net.Conn
}

func (a *assault) leave() {
	for _, c := range a.raws {
		c.close()
	}
	for _, c := range a.others {
		_ = c.Close()
	}
}

func (a *assault) raw(addr string, unread bool) (*raw, error) {
	c, err := dialRaw(addr, a.attacker, unread)
	if err == nil {
		a.raws = append(a.raws, c)
	}
	return c, err
}

const (
	mebi = 1 << 20

	getVehicle   = starlingv1.FleetService_GetVehicle_FullMethodName
	listVehicles = starlingv1.FleetService_ListVehicles_FullMethodName
	searchArea   = starlingv1.FleetService_SearchArea_FullMethodName
	watchArea    = starlingv1.FleetService_WatchArea_FullMethodName
	sendReport   = starlingv1.IngestService_SendReport_FullMethodName
)

func attacks() []attack {
	return []attack{
		{name: "rapid reset, 1 s", before: "19 CPU s", maxBytes: 150 * mebi, maxCPU: 3 * time.Second, run: rapidReset(time.Second)},
		{name: "rapid reset, 5 s", before: "7.9 GB", maxBytes: 150 * mebi, maxCPU: 15 * time.Second, long: true, run: rapidReset(5 * time.Second)},
		{name: "rapid reset of a fan-out, 1 s", before: "as the matcher", maxBytes: 150 * mebi, maxCPU: 3 * time.Second, front: true, run: rapidReset(time.Second)},
		{name: "unread lists", before: "2.1 GB for all three", maxBytes: 200 * mebi, maxTook: time.Minute, run: unread(listVehicles, &starlingv1.ListVehiclesRequest{PageSize: 10_000})},
		{name: "unread searches", before: "as above", maxBytes: 200 * mebi, maxTook: time.Minute, long: true, run: unread(searchArea, &starlingv1.SearchAreaRequest{Area: world(), MaxResults: 10_000})},
		{name: "unread watches", before: "as above", maxBytes: 200 * mebi, maxTook: time.Minute, run: unread(watchArea, &starlingv1.WatchAreaRequest{Area: world(), MinInterval: durationpb.New(50 * time.Millisecond)})},
		{name: "unread JSON lists", before: "3.7 GB for 200", maxBytes: 200 * mebi, maxTook: time.Minute, run: unreadJSON("lists", "/v1/vehicles?pageSize=10000")},
		{name: "unread JSON watches", before: "19 MiB each", maxBytes: 400 * mebi, maxTook: time.Minute, run: unreadJSON("watches", "/v1/vehicles:watchArea?"+worldQuery)},
		{name: "unfinished requests, matcher", before: "885 MiB", maxBytes: 200 * mebi, maxTook: time.Minute, run: unfinished(1, 3000, func(a *assault) string { return a.Matcher }, getVehicle, 250<<10)},
		{name: "unfinished requests, ingest", before: "667 MiB", maxBytes: 200 * mebi, maxTook: time.Minute, run: unfinished(10, 500, func(a *assault) string { return a.Ingest }, sendReport, 60<<10)},
		{name: "JSON bodies one byte short", before: "1.3 GB for 1,000", maxBytes: 200 * mebi, maxTook: time.Minute, run: shortBodies},
		{name: "idle connections", before: "no limit", maxBytes: 100 * mebi, run: idle},
		{name: "polygon of 1,000 vertices", before: "48 to 91 ms", maxPerCall: 10 * time.Millisecond, run: costly(50, polygon)},
		{name: "one result of the world", before: "19 ms", maxPerCall: 3 * time.Millisecond, run: costly(200, oneOfTheWorld)},
		{name: "130,000 empty fixes", before: "50 ms", maxPerCall: 5 * time.Millisecond, run: costly(50, emptyFixes)},
		{name: "watches left behind", before: "296 KB each", maxBytes: 200 * mebi, run: leftBehind},
		{name: "health watches", before: "no limit", maxBytes: 50 * mebi, run: healthWatches},
	}
}

// rapidReset takes searches back as soon as they are sent.
func rapidReset(during time.Duration) func(context.Context, *assault) (string, error) {
	return func(_ context.Context, a *assault) (string, error) {
		c, err := a.raw(a.fleetAddr(), false)
		if err != nil {
			return "", err
		}
		sent := 0
		for begun := time.Now(); time.Since(begun) < during; sent++ {
			id, err := c.call(searchArea, &starlingv1.SearchAreaRequest{Area: world(), MaxResults: 10_000})
			if err != nil || c.reset(id) != nil {
				break // disconnected
			}
		}
		if sent < 100 {
			return "", fmt.Errorf("only %d calls were sent", sent)
		}
		return fmt.Sprintf("%d calls of SearchArea taken back", sent), nil
	}
}

// unread calls 300 times on 10 connections and reads no answer.
func unread(method string, req proto.Message) func(context.Context, *assault) (string, error) {
	return func(ctx context.Context, a *assault) (string, error) {
		const each = 30
		sent := 0
		for range 10 {
			c, err := a.raw(a.Matcher, true)
			if err != nil {
				return "", err
			}
			for range each {
				if _, err := c.call(method, req); err != nil {
					break
				}
				sent++
			}
		}
		err := a.await(ctx, func() bool {
			for _, c := range a.raws {
				if c.over(each) < each {
					return false
				}
			}
			return true
		})
		return fmt.Sprintf("%d calls on 10 connections", sent), err
	}
}

// awaitPatience is longer than every bound on how long an attack may take.
const awaitPatience = 90 * time.Second

func (a *assault) await(ctx context.Context, over func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, awaitPatience)
	defer cancel()
	for !over() {
		if retry.Sleep(ctx, 50*time.Millisecond) != nil {
			return nil // Outcome.judge compares how long it took
		}
	}
	return nil
}

// worldQuery is the world as parameters of a URL.
const worldQuery = "area.viewport.southwest.latitude=-90&area.viewport.southwest.longitude=-180&area.viewport.northeast.latitude=90&area.viewport.northeast.longitude=180"

// unreadJSON asks 100 times over HTTP and reads no answer.
func unreadJSON(what, path string) func(context.Context, *assault) (string, error) {
	return func(ctx context.Context, a *assault) (string, error) {
		var ended sync.WaitGroup
		over := make(chan struct{})
		for range 100 {
			conn, err := net.Dial("tcp", a.json)
			if err != nil {
				return "", err
			}
			a.others = append(a.others, conn)
			// The kernel takes as little as it can.
			_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "+a.attacker+"\r\n\r\n"); err != nil {
				return "", err
			}
			ended.Go(func() { untilCut(ctx, conn) })
		}
		go func() { ended.Wait(); close(over) }()
		select {
		case <-over:
		case <-time.After(awaitPatience):
		}
		return "100 " + what, nil
	}
}

// untilCut returns when the server has closed a connection whose answer nobody
// reads: then a write fails.
func untilCut(ctx context.Context, conn net.Conn) {
	for retry.Sleep(ctx, time.Second) == nil {
		if _, err := conn.Write([]byte("\r\n")); err != nil {
			return
		}
	}
}

// unfinished sends requests that never become whole.
func unfinished(connections, calls int, addr func(*assault) string, method string, bytesEach int) func(context.Context, *assault) (string, error) {
	return func(ctx context.Context, a *assault) (string, error) {
		calls := calls
		if a.short {
			calls /= 5
		}
		body := append(prefix(bytesEach+1), make([]byte, bytesEach)...)
		var senders sync.WaitGroup
		opened := make([]int, connections)
		for i := range connections {
			c, err := a.raw(addr(a), false)
			if err != nil {
				return "", err
			}
			senders.Go(func() {
				for range calls {
					id, err := c.open(method)
					if err != nil {
						return
					}
					opened[i]++
					if err := c.data(id, false, body); err != nil && !errors.Is(err, errEnded) {
						return
					}
				}
			})
		}
		senders.Wait()
		total := 0
		for _, n := range opened {
			total += n
		}
		if total < calls {
			return "", fmt.Errorf("only %d of %d calls were sent", total, calls*connections)
		}
		err := a.await(ctx, func() bool {
			for i, c := range a.raws {
				if c.over(opened[i]) < opened[i] {
					return false
				}
			}
			return true
		})
		return fmt.Sprintf("%d calls on %d connections, %d KiB each but one byte", total, connections, bytesEach>>10), err
	}
}

// shortBodies posts JSON bodies of which the last byte does not come.
func shortBodies(ctx context.Context, a *assault) (string, error) {
	n := 1000
	if a.short {
		n = 200
	}
	body := bytes.Repeat([]byte(" "), 1<<20-1)
	head := fmt.Sprintf("POST /v1/vehicles:searchArea HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", a.attacker, len(body)+1)
	var clients sync.WaitGroup
	var mu sync.Mutex
	answers := map[string]int{}
	for range n {
		conn, err := net.Dial("tcp", a.json)
		if err != nil {
			return "", err
		}
		a.others = append(a.others, conn)
		clients.Go(func() {
			_ = conn.SetDeadline(time.Now().Add(awaitPatience))
			go func() { _, _ = io.WriteString(conn, head); _, _ = conn.Write(body) }()
			what := "closed"
			if answer, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
				what = answer.Status
				_ = answer.Body.Close()
			}
			_ = conn.Close()
			mu.Lock()
			defer mu.Unlock()
			answers[what]++
		})
	}
	clients.Wait()
	return fmt.Sprintf("%d bodies of 1 MiB: %v", n, answers), ctx.Err()
}

// idle opens connections and sends nothing on them, or only that it speaks HTTP/2.
func idle(ctx context.Context, a *assault) (string, error) {
	const each = 300
	for _, addr := range []string{a.Ingest, a.Matcher, a.json} {
		for i := range each {
			if i%2 == 0 && addr != a.json {
				if _, err := a.raw(addr, false); err != nil {
					return "", err
				}
				continue
			}
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				return "", err
			}
			a.others = append(a.others, conn)
		}
	}
	// The silent ones have to be closed; those that speak HTTP/2 may stay for
	// max_conn_idle.
	var closed sync.WaitGroup
	open := make(chan struct{}, len(a.others))
	for _, conn := range a.others {
		closed.Go(func() {
			_ = conn.SetReadDeadline(time.Now().Add(45 * time.Second))
			if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
				open <- struct{}{}
			}
		})
	}
	closed.Wait()
	if len(open) > 0 {
		return "", fmt.Errorf("%d of %d silent connections are open after 45 s", len(open), len(a.others))
	}
	return fmt.Sprintf("%d half-open, %d idle", len(a.others), len(a.raws)), ctx.Err()
}

// costly sends whole requests that are dear to answer and takes the CPU time of
// each, without that of the honest client's.
func costly(n int, prepare func(*assault) (addr, method string, message []byte, err error)) func(context.Context, *assault) (string, error) {
	return func(ctx context.Context, a *assault) (string, error) {
		addr, method, message, err := prepare(a)
		if err != nil {
			return "", err
		}
		c, err := a.raw(addr, false)
		if err != nil {
			return "", err
		}
		idle, err := a.cpuDuring(func() error { return retry.Sleep(ctx, time.Second) })
		if err != nil {
			return "", err
		}
		begun := time.Now()
		used, err := a.cpuDuring(func() error {
			for i := range n {
				id, err := c.open(method)
				if err == nil {
					err = c.data(id, true, append(prefix(len(message)), message...))
				}
				if err != nil && !errors.Is(err, errEnded) {
					return err
				}
				if err := a.await(ctx, func() bool { return c.over(i+1) == i+1 }); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return "", err
		}
		used -= time.Duration(float64(idle) * time.Since(begun).Seconds())
		a.perCall = max(0, used) / time.Duration(n)
		return fmt.Sprintf("%d calls", n), nil
	}
}

func (a *assault) cpuDuring(do func() error) (time.Duration, error) {
	before, err := a.CPU()
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := a.CPU()
	return after - before, err
}

// polygon goes up and down across the whole city 500 times.
func polygon(a *assault) (addr, method string, message []byte, err error) {
	var vertices []*starlingv1.Place
	for i := range 1000 {
		vertices = append(vertices, &starlingv1.Place{
			Latitude:  cityLatDeg + spreadDeg*(float64(i%2)-0.5),
			Longitude: cityLonDeg + spreadDeg*(float64(i/2)/500-0.5),
		})
	}
	message, err = proto.Marshal(&starlingv1.SearchAreaRequest{Area: &starlingv1.Area{Shape: &starlingv1.Area_Polygon{Polygon: &starlingv1.Polygon{Vertices: vertices}}}})
	return a.Matcher, searchArea, message, err
}

func oneOfTheWorld(a *assault) (addr, method string, message []byte, err error) {
	message, err = proto.Marshal(&starlingv1.SearchAreaRequest{Area: world(), MaxResults: 1})
	return a.Matcher, searchArea, message, err
}

// emptyFixes is a report of as many fixes as gRPC takes, each of two bytes.
func emptyFixes(a *assault) (addr, method string, message []byte, err error) {
	r := report("empty", 0, 1)
	r.Fixes = make([]*starlingv1.Fix, 130_000)
	for i := range r.Fixes {
		r.Fixes[i] = &starlingv1.Fix{}
	}
	message, err = proto.Marshal(&starlingv1.SendReportRequest{Report: r})
	return a.Ingest, sendReport, message, err
}

// leftBehind opens watches of large areas far from any vehicle, and leaves.
func leftBehind(ctx context.Context, a *assault) (string, error) {
	n := 2000
	if a.short {
		n = 200
	}
	cells := make([]string, 0, 10_000)
	for i := range cap(cells) {
		// Cells of resolution 9 in one of resolution 4, by their digits.
		index := uint64(0x08428309ffffffff) &^ (0xf << 52) &^ (1<<(3*11) - 1<<(3*6)) //nolint:mnd // the layout of H3
		index |= 9 << 52
		for d, rest := 0, i; d < 5; d, rest = d+1, rest/7 {
			index |= uint64(rest%7) << (3 * (6 + d))
		}
		cells = append(cells, fmt.Sprintf("%x", index))
	}
	req := &starlingv1.WatchAreaRequest{Area: &starlingv1.Area{Shape: &starlingv1.Area_Cells{Cells: &starlingv1.CellSet{H3Cells: cells}}}}
	c, err := a.raw(a.Matcher, false)
	if err != nil {
		return "", err
	}
	for i := range n {
		id, err := c.call(watchArea, req)
		if err != nil {
			return fmt.Sprintf("%d watches of 10,000 cells, then disconnected", i), nil
		}
		if err := retry.Sleep(ctx, 10*time.Millisecond); err != nil {
			return "", err
		}
		if c.reset(id) != nil {
			break
		}
	}
	metrics, err := a.Metrics(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d watches of 10,000 cells; %.0f are open, %.0f may be resumed, and all hold %.0f MiB", n, metrics["starling_matcher_area_watchers"], metrics["starling_matcher_area_sessions_waiting"], metrics["starling_matcher_area_watch_bytes"]/mebi), nil
}

// healthWatches opens streams that report nothing for ever.
func healthWatches(ctx context.Context, a *assault) (string, error) {
	const n = 2000
	refused := 0
	for range 2 {
		c, err := a.raw(a.Matcher, false)
		if err != nil {
			return "", err
		}
		for range n / 2 {
			if _, err := c.call(healthpb.Health_Watch_FullMethodName, &healthpb.HealthCheckRequest{}); err != nil {
				break
			}
		}
	}
	if err := retry.Sleep(ctx, 2*time.Second); err != nil {
		return "", err
	}
	for _, c := range a.raws {
		refused += c.over(n / 2)
	}
	if refused == 0 {
		return "", errors.New("all streams of health/Watch are open")
	}
	return fmt.Sprintf("%d streams of health/Watch, %d refused", n, refused), nil
}
