package rideevents

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/loadtest/conns"
	"github.com/starling-fleet/starling/loadtest/leanrpc"
	"github.com/starling-fleet/starling/loadtest/process"
	"github.com/starling-fleet/starling/loadtest/sender"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// starling is a `starling up` with a ride for each subscriber.
type starling struct {
	opts     *Options
	up       *process.Up
	audience *audience
	conns    conns.Set
	ingest   []*grpc.ClientConn
	rides    []string // by vehicle
	session  uint64
	sequence []int64 // by vehicle; its publisher's
}

func startStarling(ctx context.Context, o *Options, redis string, a *audience) (target, error) {
	args := []string{
		"--rides-max-subscribers", fmt.Sprint(2 * o.Subscribers), "--rides-matcher", "fifo", "--rides-arriving-m", "0", "--rides-max-fix-age", "10m",
		"--tracker-dispatch-max-age", "10m", "--matcher-dispatch-max-age", "10m",
	}
	if redis != "" {
		args = append(args, "--redis-addrs", redis)
	}
	up, err := process.StartUp(ctx, o.Starling, o.WorkDir, args...)
	if err != nil {
		return nil, err
	}
	return &starling{opts: o, up: up, audience: a, rides: make([]string, o.Subscribers), session: rand.Uint64() | 1, sequence: make([]int64, o.Subscribers)}, nil
}

func (s *starling) name() string { return "Starling" }

func (s *starling) running() *process.Process { return s.up.Process }

func (s *starling) stop() error {
	s.conns.Close()
	return s.up.End(time.Minute)
}

// prepare has every vehicle report once and asks for a ride where each is.
func (s *starling) prepare(ctx context.Context) error {
	for range publisherCount {
		conn, err := s.conns.Dial(s.up.Ingest)
		if err != nil {
			return err
		}
		s.ingest = append(s.ingest, conn)
	}
	publishers, err := s.publishers(ctx)
	if err != nil {
		return err
	}
	n := s.opts.Subscribers
	for i, p := range publishers {
		for vehicle := n * i / len(publishers); vehicle < n*(i+1)/len(publishers); vehicle++ {
			if err := p.publish([]int{vehicle}); err != nil {
				return err
			}
		}
		if err := p.close(); err != nil {
			return err
		}
	}
	for {
		m, err := s.up.Metrics(ctx)
		if err == nil && m["starling_matcher_vehicles"] == float64(n) {
			break
		}
		if retry.Sleep(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("%v of %d vehicles can be found: %w", m["starling_matcher_vehicles"], n, ctx.Err())
		}
	}
	return s.request(ctx)
}

// requestsAtOnce is how many calls for rides are under way at a time.
const requestsAtOnce = 64

// request asks for the rides.
func (s *starling) request(ctx context.Context) error {
	conn, err := s.conns.Dial(s.up.Matcher)
	if err != nil {
		return err
	}
	c := starlingv1.NewRideServiceClient(conn)
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range requestsAtOnce {
		group.Go(func() error {
			for {
				n := int(next.Add(1)) - 1
				if n >= len(s.rides) {
					return nil
				}
				lat, lon := s.opts.centre(n)
				rider := fmt.Sprint("rider-", n)
				made, err := c.NewRide(ctx, &starlingv1.NewRideRequest{Rider: rider, PickupLatitude: lat, PickupLongitude: lon})
				if err != nil {
					return fmt.Errorf("name a ride: %w", err)
				}
				s.rides[n] = made.Name
				_, err = c.RequestRide(ctx, &starlingv1.RequestRideRequest{Name: made.Name, Order: &starlingv1.RideOrder{
					Rider: rider, PartySize: 1, PickupLatitude: lat, PickupLongitude: lon, DropoffLatitude: lat + spacingDeg, DropoffLongitude: lon,
				}})
				if err != nil {
					return fmt.Errorf("ask for a ride: %w", err)
				}
			}
		})
	}
	return group.Wait()
}

// subscribe opens one call for each subscriber of a connection.
func (s *starling) subscribe(ctx context.Context, connection int, opened, ready func()) error {
	n := s.opts.Subscribers
	conn, err := leanrpc.DialStreams(s.up.Matcher)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if stop() {
			_ = conn.Close()
		}
	}()
	for i := n * connection / s.opts.Connections; i < n*(connection+1)/s.opts.Connections; i++ {
		request, err := proto.Marshal(&starlingv1.SubscribeRideEventsRequest{Name: s.rides[i], Positions: true})
		if err == nil {
			err = conn.Open(starlingv1.RideService_SubscribeRideEvents_FullMethodName, request, i)
		}
		if err != nil {
			return err
		}
	}
	answered, calls := make(map[int]bool), n*(connection+1)/s.opts.Connections-n*connection/s.opts.Connections
	err = conn.Run(func(number int, message []byte) error {
		if len(answered) < calls {
			if answered[number] = true; len(answered) == calls {
				opened()
			}
		}
		if sentMS, loggedMS, ok := positionTimes(message); ok {
			s.audience.take(number, sentMS, loggedMS)
			return nil
		}
		var m starlingv1.SubscribeRideEventsResponse
		if err := proto.Unmarshal(message, &m); err != nil {
			return err
		}
		if m.GetEvent().GetKind() == starlingv1.RideEventKind_RIDE_EVENT_KIND_ASSIGNED {
			ready()
		}
		return nil
	}, func(number int, err error) error {
		return fmt.Errorf("the events of ride %d ended: %w", number, errors.Join(err, errEnded))
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// errEnded is a stream that ended before its time.
var errEnded = errors.New("no ride has ended")

// Field numbers of what is decoded by hand, so that a client costs little.
const (
	positionField   = 4 // of SubscribeRideEventsResponse
	deviceTimeField = 6 // of RideVehiclePosition
	seenTimeField   = 7
)

// positionTimes returns the times of a position in milliseconds; ok is false for any
// other message.
func positionTimes(message []byte) (deviceMS, seenMS int64, ok bool) {
	eachField(message, func(field protowire.Number, value []byte, _ uint64) {
		if field != positionField {
			return
		}
		ok = true
		eachField(value, func(field protowire.Number, value []byte, _ uint64) {
			switch field {
			case deviceTimeField:
				deviceMS = timestampMS(value)
			case seenTimeField:
				seenMS = timestampMS(value)
			}
		})
	})
	return deviceMS, seenMS, ok
}

func timestampMS(value []byte) (ms int64) {
	eachField(value, func(field protowire.Number, _ []byte, v uint64) {
		switch field {
		case 1:
			ms += int64(v) * 1000
		case 2:
			ms += int64(v) / 1_000_000
		}
	})
	return ms
}

// eachField passes the fields of a message, up to where it can't be read.
func eachField(message []byte, take func(field protowire.Number, value []byte, v uint64)) {
	for len(message) > 0 {
		field, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return
		}
		message = message[n:]
		var value []byte
		var v uint64
		switch kind {
		case protowire.BytesType:
			value, n = protowire.ConsumeBytes(message)
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(message)
		default:
			n = protowire.ConsumeFieldValue(field, kind, message)
		}
		if n < 0 {
			return
		}
		take(field, value, v)
		message = message[n:]
	}
}

func (s *starling) publishers(ctx context.Context) ([]publisher, error) {
	all := make([]publisher, 0, len(s.ingest))
	for _, conn := range s.ingest {
		stream, err := sender.Open(ctx, conn, sender.OneFix())
		if err != nil {
			return nil, err
		}
		all = append(all, &reporter{s: s, stream: stream})
	}
	return all, nil
}

// reporter sends reports over one stream.
type reporter struct {
	s      *starling
	stream *sender.Stream
}

func (r *reporter) publish(vehicles []int) error {
	for _, n := range vehicles {
		report, _, err := r.stream.Next()
		if err != nil {
			return err
		}
		r.s.sequence[n]++
		nowMS := time.Now().UnixMilli()
		lat, lon := r.s.opts.at(n, nowMS)
		report.VehicleID, report.SessionID, report.Sequence = fmt.Sprint("e-", n), r.s.session, r.s.sequence[n]
		report.Fixes[0] = wire.Fix{DeviceTimeMS: nowMS, LatDeg: lat, LonDeg: lon, AccuracyM: 5, SpeedMPS: speedMPS, Has: wire.HasAccuracy | wire.HasSpeed}
		report.Availability = starlingv1.Availability_AVAILABILITY_UNSPECIFIED
		if r.s.sequence[n] == 1 {
			report.Availability = starlingv1.Availability_AVAILABILITY_FREE
		}
		if err := r.stream.Send(); err != nil {
			return err
		}
	}
	return nil
}

func (r *reporter) close() error { return r.stream.Close() }
