package watchers

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/loadtest/sender"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

const (
	// reportStreams carry the reports, each of its share of the areas.
	reportStreams = 8
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

// report sends where a vehicle is now.
func (f *fleet) report(r *sender.Stream, number int) error {
	report, _, err := r.Next()
	if err != nil {
		return err
	}
	nowMS := time.Now().UnixMilli()
	sequence := f.sequence[number].Add(1)
	angle := float64(number) + float64(nowMS%1_000_000_000)/1000*speedMPS/circleM
	sin, cos := math.Sincos(angle)
	lat, lon := f.opts.centre(number / f.opts.VehiclesPerArea)
	report.VehicleID, report.SessionID, report.Sequence = fmt.Sprint("w-", number), f.session, sequence
	report.Fixes[0] = wire.Fix{
		DeviceTimeMS: nowMS, LatDeg: lat + circleDeg*sin, LonDeg: lon + circleDeg*cos/math.Cos(lat*math.Pi/180),
		AccuracyM: 5, SpeedMPS: speedMPS, Has: wire.HasAccuracy | wire.HasSpeed,
	}
	report.Availability = starlingv1.Availability_AVAILABILITY_UNSPECIFIED
	if sequence == 1 {
		report.Availability = starlingv1.Availability_AVAILABILITY_FREE
	}
	f.sent.Add(1)
	return r.Send()
}

// share is the areas of one of the streams.
func (f *fleet) share(stream int) (from, to int) {
	return f.opts.Areas * stream / reportStreams, f.opts.Areas * (stream + 1) / reportStreams
}

// fill has every vehicle of a share report once.
func (f *fleet) fill(ctx context.Context, conn *grpc.ClientConn, stream int) error {
	r, err := sender.Open(ctx, conn, sender.OneFix())
	if err != nil {
		return err
	}
	from, to := f.share(stream)
	for number := from * f.opts.VehiclesPerArea; number < to*f.opts.VehiclesPerArea; number++ {
		if err := f.report(r, number); err != nil {
			return err
		}
	}
	return r.Close()
}

// drive has one vehicle of each area of a share report in every period, each in
// its turn, until done. The areas' turns are spread over the period.
func (f *fleet) drive(ctx, done context.Context, conn *grpc.ClientConn, stream int) error {
	r, err := sender.Open(ctx, conn, sender.OneFix())
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
			return r.Close()
		case <-tick.C:
		}
		due := int(float64(areas) * float64(time.Since(begun)) / float64(f.opts.ChangePeriod))
		for ; count < due; count++ {
			area, round := from+count%areas, count/areas
			if err := f.report(r, area*f.opts.VehiclesPerArea+round%f.opts.VehiclesPerArea); err != nil {
				return err
			}
		}
	}
}
