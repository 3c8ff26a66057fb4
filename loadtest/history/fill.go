package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"path/filepath"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/locallog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

// partitions is the default number of the local log.
const partitions = topics.DefaultPartitions

// openLog opens the local log of a work directory. Filling it needs no fsync.
func openLog(dir string) (*locallog.Log, error) {
	cfg := locallog.DefaultConfig()
	cfg.Directory, cfg.Sync = filepath.Join(dir, "log"), false
	return locallog.Open(cfg, topics.All(), prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
}

// filled returns how many records `tracks` has.
func filled(ctx context.Context, log *locallog.Log) (records int64, err error) {
	all, err := log.Bounds(ctx, topics.Tracks)
	for _, b := range all {
		records += b.End - b.First
	}
	return records, err
}

// fill appends to `tracks` what the tracker's step makes of a fleet that moves for a
// while: each vehicle reports one fix a second.
func fill(ctx context.Context, log *locallog.Log, vehicles, seconds int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2)
	for n := range int32(partitions) {
		group.Go(func() error { return fillPartition(ctx, log, n, max(1, vehicles/partitions), seconds) })
	}
	return group.Wait()
}

// appends waits for completions and keeps the first error.
type appends struct {
	sync.WaitGroup
	once sync.Once
	err  error
}

// Done implements eventlog.Completion.
func (a *appends) Done(_ int64, err error) {
	if err != nil {
		a.once.Do(func() { a.err = err })
	}
	a.WaitGroup.Done()
}

func fillPartition(ctx context.Context, log *locallog.Log, n int32, vehicles, seconds int) error {
	p, err := step.NewPartition(step.DefaultSettings(), 1)
	if err != nil {
		return err
	}
	fleet := make([]car, vehicles)
	for i := range fleet {
		fleet[i] = newCar(fmt.Sprintf("car-%02d-%05d", n, i), rand.New(rand.NewPCG(uint64(n), uint64(i))))
	}
	var waiting appends
	defer waiting.Wait()
	for s := range seconds {
		for i := range fleet {
			fix := fleet[i].drive(s)
			loc := wire.Location{Kind: wire.KindReport, Report: wire.Report{SessionID: 1, Sequence: int64(s + 1), Fixes: []wire.Fix{fix}}}
			key := []byte(fleet[i].id)
			res, err := p.Step(step.Record{Offset: int64(s*vehicles + i), AppendTimeMS: startMS + int64(s)*1000 + 999, Key: key, Value: loc.Append(nil)})
			if err = errors.Join(err, res.Poison); err != nil {
				return err
			}
			waiting.Add(1)
			if err := log.Append(ctx, topics.Tracks, n, eventlog.Record{Key: key, Value: res.Track.Append(nil)}, &waiting); err != nil {
				waiting.Done(0, nil)
				return err
			}
		}
	}
	waiting.Wait()
	return waiting.err
}

// car drives at a speed that changes, in directions that change, and reports with an
// error of a few metres.
type car struct {
	id                  string
	rng                 *rand.Rand
	latDeg, lonDeg      float64
	headingDeg, speedMS float64
}

func newCar(id string, rng *rand.Rand) car {
	return car{id, rng, 30 + rng.Float64()/2, -98 + rng.Float64()/2, rng.Float64() * 360, rng.Float64() * 15}
}

// drive moves the car by a second and returns what its device reports.
func (c *car) drive(second int) wire.Fix {
	const metresPerDeg = 111_195
	c.headingDeg = math.Mod(c.headingDeg+c.rng.NormFloat64()*4+360, 360)
	c.speedMS = max(0, min(30, c.speedMS+c.rng.NormFloat64()))
	sin, cos := math.Sincos(c.headingDeg * math.Pi / 180)
	c.latDeg += c.speedMS * cos / metresPerDeg
	c.lonDeg += c.speedMS * sin / metresPerDeg / math.Cos(c.latDeg*math.Pi/180)
	return wire.Fix{
		DeviceTimeMS: startMS + int64(second)*1000 + c.rng.Int64N(20), Has: wire.HasAccuracy | wire.HasSpeed | wire.HasHeading,
		LatDeg: c.latDeg + c.rng.NormFloat64()*3/metresPerDeg, LonDeg: c.lonDeg + c.rng.NormFloat64()*3/metresPerDeg,
		AccuracyM: float32(3 + c.rng.Float64()*5), SpeedMPS: float32(max(0, c.speedMS+c.rng.NormFloat64()*0.3)), HeadingDeg: float32(math.Mod(c.headingDeg+c.rng.NormFloat64()*2+360, 360)),
	}
}
