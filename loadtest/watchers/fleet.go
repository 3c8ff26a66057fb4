package watchers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

const (
	// reportStreams carry the reports, each of its share of the areas.
	reportStreams = 8
	// maxUnacknowledged reports wait on a stream.
	maxUnacknowledged = 4096
	// speedMPS is that of every vehicle, on a circle.
	speedMPS  = 10.0
	circleM   = circleDeg * metresPerDegree
	streamGap = 5 * time.Millisecond // between two looks at what is due

	metresPerDegree = 111_195.0
)

// fleet are the vehicles, area by area.
type fleet struct {
	opts     *Options
	session  uint64
	sequence []atomic.Int64 // of the vehicle, by number
	sent     atomic.Int64
}

func newFleet(o *Options) *fleet {
	return &fleet{opts: o, session: rand.Uint64() | 1, sequence: make([]atomic.Int64, o.Areas*o.VehiclesPerArea)}
}

// reports is a stream of reports.
type reports struct {
	fleet       *fleet
	stream      grpc.ClientStream
	req         wire.StreamRequest
	sent, acked atomic.Int64
	room        chan struct{} // has a token when more was acknowledged
	ended       chan error
}

func (f *fleet) open(ctx context.Context, conn *grpc.ClientConn) (*reports, error) {
	desc := &grpc.StreamDesc{StreamName: "StreamReports", ClientStreams: true, ServerStreams: true}
	stream, err := conn.NewStream(ctx, desc, starlingv1.IngestService_StreamReports_FullMethodName, grpc.ForceCodecV2(wire.Codec()))
	if err != nil {
		return nil, fmt.Errorf("open a stream of reports: %w", err)
	}
	r := &reports{fleet: f, stream: stream, room: make(chan struct{}, 1), ended: make(chan error, 1)}
	r.req = wire.StreamRequest{HasReport: true, Report: wire.Report{Fixes: make([]wire.Fix, 1)}}
	go func() {
		r.ended <- r.receive()
		close(r.ended)
	}()
	return r, nil
}

// send reports where a vehicle is now.
func (r *reports) send(number int) error {
	for r.sent.Load()-r.acked.Load() >= maxUnacknowledged {
		select {
		case <-r.room:
		case err := <-r.ended:
			return fmt.Errorf("reports: the stream ended: %w", err)
		}
	}
	f, nowMS := r.fleet, time.Now().UnixMilli()
	sequence := f.sequence[number].Add(1)
	angle := float64(number) + float64(nowMS%1_000_000_000)/1000*speedMPS/circleM
	sin, cos := math.Sincos(angle)
	lat, lon := f.opts.centre(number / f.opts.VehiclesPerArea)
	report := &r.req.Report
	report.VehicleID, report.SessionID, report.Sequence = fmt.Sprint("w-", number), f.session, sequence
	report.Fixes[0] = wire.Fix{
		DeviceTimeMS: nowMS, LatDeg: lat + circleDeg*sin, LonDeg: lon + circleDeg*cos/math.Cos(lat*math.Pi/180),
		AccuracyM: 5, SpeedMPS: speedMPS, Has: wire.HasAccuracy | wire.HasSpeed,
	}
	report.Availability = starlingv1.Availability_AVAILABILITY_UNSPECIFIED
	if sequence == 1 {
		report.Availability = starlingv1.Availability_AVAILABILITY_FREE
	}
	r.sent.Add(1)
	f.sent.Add(1)
	if err := r.stream.SendMsg(&r.req); err != nil {
		return fmt.Errorf("reports: send: %w", err)
	}
	return nil
}

func (r *reports) receive() error {
	var ack wire.Ack
	for {
		if err := r.stream.RecvMsg(&ack); err != nil {
			if errors.Is(err, io.EOF) && r.sent.Load() == r.acked.Load() {
				return nil
			}
			return err
		}
		if len(ack.Refusals) > 0 {
			return fmt.Errorf("a fix was refused: %s", ack.Refusals[0].Description)
		}
		r.acked.Store(ack.AcknowledgedReports)
		select {
		case r.room <- struct{}{}:
		default:
		}
	}
}

// close waits until everything is acknowledged.
func (r *reports) close() error {
	if err := r.stream.CloseSend(); err != nil {
		return fmt.Errorf("reports: close: %w", err)
	}
	if err := <-r.ended; err != nil {
		return fmt.Errorf("reports: %w", err)
	}
	return nil
}

// share is the areas of one of the streams.
func (f *fleet) share(stream int) (from, to int) {
	return f.opts.Areas * stream / reportStreams, f.opts.Areas * (stream + 1) / reportStreams
}

// fill has every vehicle of a share report once.
func (f *fleet) fill(ctx context.Context, conn *grpc.ClientConn, stream int) error {
	r, err := f.open(ctx, conn)
	if err != nil {
		return err
	}
	from, to := f.share(stream)
	for number := from * f.opts.VehiclesPerArea; number < to*f.opts.VehiclesPerArea; number++ {
		if err := r.send(number); err != nil {
			return err
		}
	}
	return r.close()
}

// drive has one vehicle of each area of a share report in every period, each in
// its turn, until done. The areas' turns are spread over the period.
func (f *fleet) drive(ctx, done context.Context, conn *grpc.ClientConn, stream int) error {
	r, err := f.open(ctx, conn)
	if err != nil {
		return err
	}
	from, to := f.share(stream)
	areas := to - from
	tick := time.NewTicker(streamGap)
	defer tick.Stop()
	begun, count := time.Now(), 0
	for {
		select {
		case <-done.Done():
			return r.close()
		case <-tick.C:
		}
		due := int(float64(areas) * float64(time.Since(begun)) / float64(f.opts.ChangePeriod))
		for ; count < due; count++ {
			area, round := from+count%areas, count/areas
			if err := r.send(area*f.opts.VehiclesPerArea + round%f.opts.VehiclesPerArea); err != nil {
				return err
			}
		}
	}
}
