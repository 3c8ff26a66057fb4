package nearest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/loadtest/leanrpc"
	"github.com/starling-fleet/starling/loadtest/process"
	"github.com/starling-fleet/starling/loadtest/sender"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

const (
	// streams carry the reports, each of its share of the vehicles.
	streams = 8
	// streamTick is how often a stream sends what is due; the streams take turns.
	streamTick = streams * time.Millisecond
	// recordsMetric counts what the matcher has made searchable.
	recordsMetric  = "starling_matcher_records_total"
	vehiclesMetric = "starling_matcher_vehicles"
)

// starlingTarget is a `starling up` of its own on a new local log.
type starlingTarget struct {
	*process.Up
	opts  *Options
	mu    sync.Mutex
	conns []io.Closer // guarded by mu
}

func startStarling(ctx context.Context, o *Options) (*starlingTarget, error) {
	up, err := process.StartUp(ctx, o.Starling, o.WorkDir)
	if err != nil {
		return nil, err
	}
	return &starlingTarget{Up: up, opts: o}, nil
}

func (s *starlingTarget) name() string { return "starling" }

// keep closes a connection when the target is stopped.
func (s *starlingTarget) keep(conn io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, conn)
}

// fill sends a report of every vehicle, with its availability and attributes,
// as fast as they are acknowledged.
func (s *starlingTarget) fill(ctx context.Context, fleet []vehicle) error {
	err := s.eachShare(ctx, fleet, func(ctx context.Context, _ int, conn *grpc.ClientConn, share []vehicle) error {
		r, err := sender.Open(ctx, conn, sender.OneFix())
		if err != nil {
			return err
		}
		for i := range share {
			if err := send(r, &share[i], time.Now().UnixMilli(), true); err != nil {
				return err
			}
		}
		return r.Close()
	})
	if err != nil {
		return fmt.Errorf("fill: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		m, err := s.Metrics(ctx)
		if err != nil {
			return err
		}
		if int(m[vehiclesMetric]) == len(fleet) {
			return nil
		}
		if retry.Sleep(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("fill: %v of %d vehicles can be found: %w", m[vehiclesMetric], len(fleet), ctx.Err())
		}
	}
}

// eachShare runs fn for equal shares of the fleet, each on a connection.
func (s *starlingTarget) eachShare(ctx context.Context, fleet []vehicle, fn func(ctx context.Context, number int, conn *grpc.ClientConn, share []vehicle) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range streams {
		// Windows of a fixed size spare the connection pings with every answer.
		const window = 1 << 20
		conn, err := client.Dial(s.Ingest, client.DialOptions{Extra: []grpc.DialOption{
			grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window),
		}})
		if err != nil {
			return errors.Join(err, group.Wait())
		}
		s.keep(conn)
		share := fleet[len(fleet)*i/streams : len(fleet)*(i+1)/streams]
		group.Go(func() error { return fn(ctx, i, conn, share) })
	}
	return group.Wait()
}

func (s *starlingTarget) update(ctx context.Context, fleet []vehicle, perSecond int) error {
	if perSecond == 0 {
		<-ctx.Done()
		return nil
	}
	// Streams outlive ctx, so that they end with everything acknowledged.
	return s.eachShare(context.WithoutCancel(ctx), fleet, func(callCtx context.Context, number int, conn *grpc.ClientConn, share []vehicle) error {
		shuffled, p := newShuffle(len(share), uint64(len(fleet))), newPace(float64(perSecond)/streams)
		begin := streamTick * time.Duration(number) / streams
		for {
			err := sendShare(ctx, callCtx, conn, share, shuffled, p, begin)
			// An overloaded server ends streams: its updates are missing in the
			// figures, and the stream is opened again, as drivers would.
			if status.Code(err) != codes.ResourceExhausted {
				return err
			}
			begin = refusedPause
		}
	})
}

// refusedPause comes before a stream that the server has refused is opened again.
const refusedPause = 200 * time.Millisecond

// sendShare reports what is due of a share of the fleet on one stream until ctx
// is done.
func sendShare(ctx, callCtx context.Context, conn *grpc.ClientConn, share []vehicle, shuffled *shuffle, p *pace, begin time.Duration) error {
	r, err := sender.Open(callCtx, conn, sender.OneFix())
	if err != nil {
		return err
	}
	err = eachTick(ctx, streamTick, begin, func() (bool, error) {
		nowMS := time.Now().UnixMilli()
		for range p.due(len(share)) {
			if err := send(r, &share[shuffled.next()], nowMS, false); err != nil {
				return false, err
			}
		}
		return false, nil
	})
	return errors.Join(err, r.Close())
}

// send moves a vehicle on and reports where it is.
func send(r *sender.Stream, v *vehicle, nowMS int64, whole bool) error {
	report, _, err := r.Next()
	if err != nil {
		return err
	}
	v.drive(nowMS)
	report.VehicleID, report.SessionID, report.Sequence = v.id, v.session, v.sequence
	report.Fixes[0] = wire.Fix{
		DeviceTimeMS: v.lastMS, LatDeg: v.latDeg, LonDeg: v.lonDeg, AccuracyM: 5,
		SpeedMPS: v.reportedSpeedMPS, HeadingDeg: v.headingDeg, Has: wire.HasAccuracy | wire.HasSpeed,
	}
	if v.reportedSpeedMPS > 0 {
		report.Fixes[0].Has |= wire.HasHeading
	}
	report.Availability, report.HasAttributes = 0, whole
	if whole {
		report.Availability, report.Attributes = v.availability, wire.Attributes{Type: "van", Seats: v.seats}
	}
	return r.Send()
}

func (s *starlingTarget) updated(ctx context.Context) (float64, error) {
	m, err := s.Metrics(ctx)
	return m[recordsMetric], err
}

func (s *starlingTarget) searchers(n int) ([]searcher, error) {
	out := make([]searcher, n)
	for i := range out {
		conn, err := leanrpc.Dial(s.Matcher)
		if err != nil {
			return nil, err
		}
		s.keep(conn)
		out[i] = &starlingSearcher{conn: conn, req: &starlingv1.SearchNearestRequest{
			Place: &starlingv1.Place{}, MaxResults: int32(s.opts.Results), RadiusM: s.opts.RadiusM,
		}}
	}
	return out, nil
}

type starlingSearcher struct {
	conn    *leanrpc.Conn
	req     *starlingv1.SearchNearestRequest
	request []byte
	answer  answer
}

// passesOneInTwenty matches what newFleet draws.
var passesOneInTwenty = &starlingv1.VehicleFilter{Availabilities: []starlingv1.Availability{starlingv1.Availability_AVAILABILITY_FREE}, MinSeats: 8}

func (s *starlingSearcher) search(_ context.Context, q query) (int, error) {
	s.req.Place.Latitude, s.req.Place.Longitude, s.req.Filter = q.latDeg, q.lonDeg, nil
	if q.filtered {
		s.req.Filter = passesOneInTwenty
	}
	var err error
	if s.request, err = (proto.MarshalOptions{}).MarshalAppend(s.request[:0], s.req); err != nil {
		return 0, fmt.Errorf("SearchNearest: %w", err)
	}
	answer, err := s.conn.Call(starlingv1.FleetService_SearchNearest_FullMethodName, s.request)
	if err != nil {
		return 0, err
	}
	if err := s.answer.decode(answer); err != nil {
		return 0, fmt.Errorf("SearchNearest: %w", err)
	}
	found := s.answer.results
	for i := 1; i < len(found); i++ {
		if found[i].distanceM < found[i-1].distanceM {
			return 0, fmt.Errorf("SearchNearest: %s is before %s, which is nearer", found[i-1].name, found[i].name)
		}
	}
	return len(found), nil
}

func (s *starlingTarget) cpu() (time.Duration, error) { return s.CPU() }
func (s *starlingTarget) memory() int64               { return s.Memory("VmRSS") }

func (s *starlingTarget) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	return s.End(time.Minute)
}

// shuffle names vehicles one after the other in a shuffled order, again and again.
type shuffle struct {
	order []uint32
	at    int
}

func newShuffle(n int, seed uint64) *shuffle {
	t := &shuffle{order: make([]uint32, n)}
	for i, v := range rand.New(rand.NewPCG(seed, 4)).Perm(n) {
		t.order[i] = uint32(v)
	}
	return t
}

func (t *shuffle) next() int {
	if t.at == len(t.order) {
		t.at = 0
	}
	t.at++
	return int(t.order[t.at-1])
}
