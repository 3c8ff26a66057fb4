package replay

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Run plays the files and returns the account of every row. The whole recording
// is held in memory, 56 bytes a row. When Run fails, the account shows how far
// it came.
func Run(ctx context.Context, opts Options) (Account, error) {
	if err := opts.Validate(); err != nil {
		return Account{}, fmt.Errorf("replay: %w", err)
	}
	if opts.Fleet == nil {
		opts.Fleet = opts.Ingest
	}
	rec, err := load(opts.Paths, opts.VehiclePrefix)
	if err != nil {
		return Account{}, fmt.Errorf("replay: %w", err)
	}
	var shortened time.Duration
	if opts.MaxGap > 0 {
		shortened = time.Duration(rec.closeGaps(opts.MaxGap.Milliseconds())) * time.Millisecond
	}
	p := &playback{
		opts: opts, rec: rec, shortened: shortened,
		batches: make([]batch, len(rec.vehicles)),
		refused: map[string]int64{},
		begun:   time.Now(),
	}
	account, err := p.run(ctx)
	if err != nil {
		return account, fmt.Errorf("replay: %w", err)
	}
	return account, nil
}

// batch gathers the fixes of a vehicle's next report.
type batch struct {
	fixes []*starlingv1.Fix
	since time.Time
}

type playback struct {
	opts Options
	rec  *recording
	// shortened is what MaxGap has taken out of the recording.
	shortened time.Duration
	reporter  *client.Reporter
	batches   []batch // by vehicle
	waiting   int     // vehicles with fixes in their batch
	begun     time.Time

	mu         sync.Mutex // guards what handlers and progress share
	sent       int64      // rows handed on
	settling   bool
	consumed   int64
	refused    map[string]int64
	lastReport time.Time
	lastAck    int64
}

func (p *playback) run(ctx context.Context) (Account, error) {
	fleet := starlingv1.NewFleetServiceClient(p.opts.Fleet)
	count := func(ctx context.Context) (counts, error) { return fleetCounts(ctx, fleet, p.rec.vehicles) }
	before, err := count(ctx)
	if err != nil {
		return p.account(0), err
	}
	stopProgress := p.reportProgress()
	defer stopProgress()
	sendErr := p.send(ctx)
	account := p.account(time.Since(p.begun))
	if sendErr != nil {
		return account, sendErr
	}
	p.mu.Lock()
	p.settling = true
	p.mu.Unlock()
	settleStart := time.Now()
	want := account.Acknowledged - sum(account.Refused)
	delta, settled, err := settle(ctx, count, before, want, account.Resent > 0, p.opts.SettleTimeout, func(c counts) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.consumed = c.total()
	})
	account.Accepted, account.Duplicates, account.Conflicts, account.Late = delta.accepted, delta.duplicate, delta.conflict, delta.late
	account.Settled, account.SettleDuration = settled, time.Since(settleStart)
	if settled {
		account.Copies = delta.total() - want
	}
	return account, err
}

// send plays all rows and waits until the server has answered for each.
func (p *playback) send(ctx context.Context) error {
	handlers := client.Troubles(p.opts.Trouble)
	handlers.Refused = func(r client.Refusal) { // the account names them
		p.mu.Lock()
		defer p.mu.Unlock()
		p.refused[reasonName(r.Reason)]++
	}
	reporter, err := client.NewReporter(p.opts.Ingest, p.opts.Client, handlers)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.reporter = reporter
	p.mu.Unlock()
	runCtx, cancel := context.WithCancelCause(ctx)
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		// An error ends what waits in Send and between rows, too.
		cancel(reporter.Run(ctx))
	}()
	defer func() { cancel(nil); <-ran }()
	if err := p.play(runCtx); err != nil {
		cancel(err)
		// Run's error is the cause of Send's.
		if cause := context.Cause(runCtx); cause != nil {
			err = cause
		}
		return fmt.Errorf("send: %w", err)
	}
	if err := reporter.Close(ctx); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

func (p *playback) play(ctx context.Context) error {
	plan := newSchedule(p.rec, time.Now(), p.opts.Speedup, p.opts.AsRecorded)
	lastFlush := time.Now()
	for i := range p.rec.rows {
		index, due := plan.at(i)
		if p.opts.Speedup > 0 {
			if err := p.wait(ctx, due, &lastFlush); err != nil {
				return err
			}
		}
		r := &p.rec.rows[index]
		if err := p.add(ctx, r, r.unixMS+plan.shiftMS[r.file]); err != nil {
			return err
		}
	}
	return p.flush(ctx, 0)
}

// wait sleeps until due and sends batches that have waited for long enough
// meanwhile.
func (p *playback) wait(ctx context.Context, due time.Time, lastFlush *time.Time) error {
	for {
		now := time.Now()
		if now.Sub(*lastFlush) >= p.opts.MaxWait/4 {
			*lastFlush = now
			if err := p.flush(ctx, p.opts.MaxWait); err != nil {
				return err
			}
		}
		left := due.Sub(now)
		if left <= 0 {
			return ctx.Err()
		}
		if retry.Sleep(ctx, min(left, p.opts.MaxWait/4)) != nil {
			return context.Cause(ctx)
		}
	}
}

// add puts a row into its vehicle's batch. A report may not hold a device time
// twice, so natural duplicates go into reports of their own and are counted by
// the tracker as what they are.
func (p *playback) add(ctx context.Context, r *row, deviceTimeMS int64) error {
	b := &p.batches[r.vehicle]
	for _, f := range b.fixes {
		if f.GetDeviceTimeMs() == deviceTimeMS {
			if err := p.sendBatch(ctx, int(r.vehicle)); err != nil {
				return err
			}
			break
		}
	}
	if len(b.fixes) == 0 {
		p.waiting++
		if p.opts.Speedup > 0 {
			b.since = time.Now()
		}
	}
	b.fixes = append(b.fixes, r.fix(deviceTimeMS))
	if len(b.fixes) < p.opts.BatchSize {
		return nil
	}
	return p.sendBatch(ctx, int(r.vehicle))
}

// flush sends the batches that are at least so old.
func (p *playback) flush(ctx context.Context, age time.Duration) error {
	if p.waiting == 0 {
		return nil
	}
	now := time.Now()
	for v := range p.batches {
		if len(p.batches[v].fixes) > 0 && (age == 0 || now.Sub(p.batches[v].since) >= age) {
			if err := p.sendBatch(ctx, v); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *playback) sendBatch(ctx context.Context, vehicle int) error {
	b := &p.batches[vehicle]
	err := p.reporter.Send(ctx, &starlingv1.Report{VehicleId: p.rec.vehicles[vehicle], Fixes: b.fixes})
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.sent += int64(len(b.fixes))
	p.mu.Unlock()
	clear(b.fixes)
	b.fixes = b.fixes[:0]
	p.waiting--
	return nil
}

func (r *row) fix(deviceTimeMS int64) *starlingv1.Fix {
	f := &starlingv1.Fix{DeviceTimeMs: deviceTimeMS, Latitude: r.latDeg, Longitude: r.lonDeg}
	for _, o := range []struct {
		bit  has
		from *float32
		to   **float32
	}{
		{hasAccuracy, &r.accuracyM, &f.AccuracyM},
		{hasSpeed, &r.speedMPS, &f.SpeedMps},
		{hasHeading, &r.headingDeg, &f.HeadingDeg},
		{hasAltitude, &r.altitudeM, &f.AltitudeM},
	} {
		if r.has&o.bit != 0 {
			*o.to = o.from
		}
	}
	return f
}

// account sums up what is known before the fleet is read.
func (p *playback) account(took time.Duration) Account {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := Account{
		Files: p.rec.files, SkippedFiles: p.rec.skipped, Vehicles: len(p.rec.vehicles),
		Rows: p.rec.total, Unreadable: p.rec.unreadable, Refused: p.refused, Shortened: p.shortened, SendDuration: took,
	}
	if p.reporter != nil {
		s := p.reporter.Stats()
		a.Acknowledged, a.Rejected, a.Resent, a.BrokenStreams = s.AcknowledgedFixes, s.RejectedFixes, s.ResentFixes, s.BrokenStreams
	}
	a.Unacknowledged = int64(len(p.rec.rows)) - a.Acknowledged - a.Rejected
	return a
}

// reportProgress calls Progress until the returned function is called.
func (p *playback) reportProgress() (stop func()) {
	if p.opts.Progress == nil {
		return func() {}
	}
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(p.opts.ProgressEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.opts.Progress(p.progress())
			case <-quit:
				p.opts.Progress(p.progress())
				return
			}
		}
	}()
	return func() { close(quit); <-ended }
}

func (p *playback) progress() Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	g := Progress{Settling: p.settling, Rows: p.sent, RowsTotal: int64(len(p.rec.rows)), Consumed: p.consumed, Elapsed: now.Sub(p.begun)}
	if p.reporter == nil {
		return g
	}
	s := p.reporter.Stats()
	g.AcknowledgedFixes, g.RefusedFixes, g.UnacknowledgedReports = s.AcknowledgedFixes, s.RefusedFixes, s.PendingReports
	last := p.lastReport
	if last.IsZero() {
		last = p.begun
	}
	if d := now.Sub(last).Seconds(); d > 0 {
		g.FixesPerSecond = float64(s.AcknowledgedFixes-p.lastAck) / d
	}
	p.lastReport, p.lastAck = now, s.AcknowledgedFixes
	return g
}

// reasonName is the reason in the form of the documentation, such as
// "null_island".
func reasonName(r starlingv1.RefusalReason) string {
	return strings.ToLower(strings.TrimPrefix(r.String(), "REFUSAL_REASON_"))
}
