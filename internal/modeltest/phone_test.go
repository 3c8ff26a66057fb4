package modeltest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync/atomic"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/ingest"
	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// phone is a client with a report queue that keeps to the driver protocol, but
// for what the world makes it do on purpose. It reports for some vehicles.
type phone struct {
	world    *world
	vehicles []*device
	unary    bool
	conn     *conn
	queue    []*report // unacknowledged, in the order of sending
	// keptBack means that the last stream or call ended because most devices
	// contradict the server's clock: what is queued waits for a person.
	keptBack bool
}

// device is one that reports for a vehicle: its clock and the numbers of its
// reports. A vehicle may have two.
type device struct {
	id   string
	skew time.Duration
	// lag is how old the fixes are that it sends at the pace at which it
	// recorded them; now and then it sends the newest.
	lag      time.Duration
	session  uint64
	sequence int64
	lat, lon float64
	sent     []*report // all there were
	held     []*report // not sent yet
	taken    []wire.Fix
}

// report is a report as the app keeps it.
type report struct {
	wire.Report
	acked, dropped bool
}

// attempt is a report that was sent, and what it must become.
type attempt struct {
	*report
	number   int64
	stored   string // what must be in the log before it is acknowledged, "" for nothing
	refusals []wire.FixRefusal
}

// conn is one StreamReports call, or a run of SendReport calls.
type conn struct {
	phone *phone
	node  *node
	// mute: what the server sends gets lost from now on.
	mute     atomic.Bool
	ctx      context.Context
	hangUp   context.CancelFunc
	in       chan []byte
	attempts []attempt
	acked    int64 // what the server has acknowledged, received or not
	last     *report
	over     atomic.Bool
	grpc.ServerStream
}

func (p *phone) connect() bool {
	up := p.world.up(func(n *node) bool { return n.ingest != nil })
	if len(up) == 0 {
		return false
	}
	c := &conn{phone: p, node: up[p.world.rng.IntN(len(up))], in: make(chan []byte, 512)}
	c.ctx, c.hangUp = context.WithCancel(auth.WithCaller(c.node.ctx, &auth.Caller{Scopes: auth.Report, Vehicle: "*"}))
	p.conn = c
	if !p.unary {
		c.node.running.Go(func() {
			err := c.node.ingest.StreamReports(c)
			c.over.Store(true)
			p.world.streamEnded(c, err)
		})
	}
	for _, r := range p.unacknowledged() {
		p.transmit(r)
	}
	return true
}

func (p *phone) unacknowledged() []*report {
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	return slices.Clone(p.queue)
}

// disconnect breaks the line. With mute, what the server has sent last is lost.
func (p *phone) disconnect() {
	if p.conn != nil {
		p.conn.mute.Store(true)
		p.conn.hangUp()
		p.conn = nil
	}
}

func (p *phone) connected() bool {
	if p.conn != nil && (p.conn.over.Load() || p.conn.node.isDead() || p.conn.node.ended.Load()) {
		p.disconnect()
	}
	return p.conn != nil
}

// send puts a report into the queue and sends it if there is a line.
func (p *phone) send(r *report) {
	p.world.mu.Lock()
	if !slices.Contains(p.queue, r) && !r.acked {
		p.queue = append(p.queue, r)
	}
	p.world.mu.Unlock()
	switch {
	case p.connected():
		p.transmit(r)
	default:
		p.connect()
	}
}

// transmit hands one report to the line.
func (p *phone) transmit(r *report) {
	c := p.conn
	a := p.world.expect(r, c.node.clockSkew)
	a.number = int64(len(c.attempts)) + 1
	p.world.mu.Lock()
	c.attempts = append(c.attempts, a)
	p.world.mu.Unlock()
	request := wire.StreamRequest{HasReport: true, Report: r.Report}
	if p.unary {
		c.node.running.Go(func() { c.call(a, request.ToProto().Report) })
		synctest.Wait() // one report at a time, unless the log hangs
		return
	}
	if last := c.last; last != nil {
		if last.VehicleID == r.VehicleID {
			request.Report.VehicleID = ""
		}
		if last.SessionID == r.SessionID {
			request.Report.SessionID = 0
		}
	}
	c.last = r
	c.in <- request.Append(nil)
	if p.world.calm {
		synctest.Wait() // reports of one instant reach the log in the order of sending
	}
}

func (c *conn) call(a attempt, r *starlingv1.Report) {
	resp, err := c.node.ingest.SendReport(c.ctx, &starlingv1.SendReportRequest{Report: r})
	w := c.phone.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		c.phone.ended(err)
		return
	}
	if resp.AcknowledgedSequence != a.Sequence {
		w.failLocked("sequence %d was acknowledged as %d", a.Sequence, resp.AcknowledgedSequence)
	}
	var refusals []wire.FixRefusal
	for _, f := range resp.Refusals {
		refusals = append(refusals, wire.FixRefusalFromProto(f))
	}
	for i := range refusals {
		refusals[i].ReportNumber = a.number
	}
	w.acknowledged(c, a, refusals)
}

// Context, RecvMsg, SendMsg, Recv and Send make it a gRPC stream without gRPC.
func (c *conn) Context() context.Context { return c.ctx }

func (c *conn) RecvMsg(m any) error {
	select {
	case b, open := <-c.in:
		if !open {
			return io.EOF
		}
		return m.(interface{ Unmarshal([]byte) error }).Unmarshal(b)
	case <-c.ctx.Done():
		return status.FromContextError(c.ctx.Err()).Err()
	}
}

func (c *conn) SendMsg(m any) error {
	if c.ctx.Err() != nil {
		return status.FromContextError(c.ctx.Err()).Err()
	}
	ack := m.(*wire.Ack)
	w := c.phone.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if ack.AcknowledgedReports > int64(len(c.attempts)) || ack.AcknowledgedReports <= c.acked {
		w.failLocked("%d reports were acknowledged after %d, of %d", ack.AcknowledgedReports, c.acked, len(c.attempts))
		return nil
	}
	covered := c.attempts[c.acked:ack.AcknowledgedReports]
	c.acked = ack.AcknowledgedReports
	refusals := slices.Clone(ack.Refusals)
	for _, a := range covered {
		n := 0
		for n < len(refusals) && refusals[n].ReportNumber == a.number {
			n++
		}
		w.acknowledged(c, a, refusals[:n])
		refusals = refusals[n:]
	}
	if len(refusals) > 0 {
		w.failLocked("refusals of reports that were not acknowledged: %v", refusals)
	}
	return nil
}

func (c *conn) Recv() (*starlingv1.StreamReportsRequest, error) {
	return nil, errors.New("ingest reads by RecvMsg")
}

func (c *conn) Send(*starlingv1.StreamReportsResponse) error {
	return errors.New("ingest sends by SendMsg")
}

// acknowledged takes note that the server has acknowledged an attempt: at that
// moment it must be in the log. w.mu is held.
func (w *world) acknowledged(c *conn, a attempt, refusals []wire.FixRefusal) {
	if a.stored != "" && w.stored[a.stored] == 0 {
		w.failLocked("report %s %d/%d was acknowledged and is not in the log: %v %v", a.VehicleID, a.SessionID, a.Sequence, a.Report, a.refusals)
	}
	if len(refusals) != len(a.refusals) {
		w.failLocked("report %s %d/%d: %d refusals, want %d", a.VehicleID, a.SessionID, a.Sequence, len(refusals), len(a.refusals))
		return
	}
	for i, got := range refusals {
		want := a.refusals[i]
		if got.FixIndex != want.FixIndex || got.Reason != want.Reason || got.Sequence != a.Sequence {
			w.failLocked("report %s %d/%d: refusal %v, want %v", a.VehicleID, a.SessionID, a.Sequence, got, want)
		}
	}
	if c.mute.Load() {
		return
	}
	a.acked = true
	if i := slices.Index(c.phone.queue, a.report); i >= 0 {
		c.phone.queue = slices.Delete(c.phone.queue, i, i+1)
	}
	w.tally.acked++
}

// expect is ingest in a few lines: what a report sent now to a server whose
// clock is off must become.
func (w *world) expect(r *report, clockSkew time.Duration) attempt {
	nowMS := time.Now().Add(clockSkew).UnixMilli()
	rules := w.cfg.ingest.Validation
	a := attempt{report: r}
	kept := r.Report
	kept.VehicleID, kept.Fixes = "", nil
	times := map[int64]bool{}
	for i, f := range r.Fixes {
		reason := reasonAgainst(f, nowMS, rules)
		if reason == 0 && times[f.DeviceTimeMS] {
			reason = starlingv1.RefusalReason_REFUSAL_REASON_TIME_REPEATED
		}
		if reason != 0 {
			a.refusals = append(a.refusals, wire.FixRefusal{FixIndex: int32(i), Reason: reason})
			continue
		}
		times[f.DeviceTimeMS] = true
		kept.Fixes = append(kept.Fixes, f)
	}
	if len(kept.Fixes) > 0 || kept.Availability != 0 || kept.HasAttributes {
		a.stored = storedKey(partitionOf(r.VehicleID), []byte(r.VehicleID),
			(&wire.Location{Kind: wire.KindReport, Report: kept}).Append(nil))
		w.mu.Lock()
		w.expected[a.stored]++
		w.mu.Unlock()
	}
	return a
}

// reasonAgainst judges the kinds of bad fixes that the world makes.
func reasonAgainst(f wire.Fix, nowMS int64, rules ingest.ValidationConfig) starlingv1.RefusalReason {
	switch {
	case math.IsNaN(f.LatDeg):
		return starlingv1.RefusalReason_REFUSAL_REASON_COORDINATE_NOT_FINITE
	case math.Abs(f.LatDeg) > 90:
		return starlingv1.RefusalReason_REFUSAL_REASON_COORDINATE_OUT_OF_RANGE
	case f.DeviceTimeMS <= 0:
		return starlingv1.RefusalReason_REFUSAL_REASON_TIME_NOT_POSITIVE
	case f.DeviceTimeMS > nowMS+rules.MaxAhead.Milliseconds():
		return starlingv1.RefusalReason_REFUSAL_REASON_TIME_TOO_FAR_AHEAD
	case f.DeviceTimeMS < nowMS-rules.MaxAge.Milliseconds():
		return starlingv1.RefusalReason_REFUSAL_REASON_TIME_TOO_OLD
	}
	return 0
}

func storedKey(partition int32, key, value []byte) string {
	return fmt.Sprintf("%d %s %s", partition, key, value)
}

func partitionOf(id string) int32 { return eventlog.PartitionOf([]byte(id), partitions) }
