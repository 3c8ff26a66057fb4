package ridedrill

import (
	"context"
	"iter"
	"maps"
	"slices"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/latency"
	"github.com/starling-fleet/starling/loadtest/drill/drillog"
	"github.com/starling-fleet/starling/loadtest/ridedrill/check"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// verify reads the log after the last process has stopped and has it judged.
func (d *drill) verify(ctx context.Context, account *Account) error {
	log, err := d.w.opts.log().Open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	c := check.New(log.Partitions())
	d.logf("reading the log")
	if err := d.readRides(ctx, log, c); err != nil {
		return err
	}
	for n := range log.Partitions() {
		v := c.Vehicles(n)
		for _, part := range []struct {
			topic string
			take  func(check.Record)
		}{{topics.Locations, v.Location}, {topics.Tracks, v.Track}} {
			records, failed := read(ctx, log, part.topic, n)
			for rec := range records {
				part.take(rec)
			}
			if err := failed(); err != nil {
				return err
			}
		}
		v.Finish()
	}
	c.Finish()
	d.logf("judging what clients were sent")
	d.judgeClients(c, account)
	account.Findings.Merge(&c.Findings)
	account.Totals = c.Totals
	return nil
}

// readRides reads `ride-requests`, with what clients were acknowledged, and
// `rides`.
func (d *drill) readRides(ctx context.Context, log eventlog.Log, c *check.Checker) error {
	type place struct {
		partition int32
		offset    int64
	}
	acknowledged := make(map[place][]check.Call)
	for _, name := range slices.Sorted(maps.Keys(d.history.journeys)) {
		for _, call := range d.history.journeys[name].acknowledged {
			at := place{call.Partition, call.Offset}
			acknowledged[at] = append(acknowledged[at], call)
		}
	}
	for n := range log.Partitions() {
		records, failed := read(ctx, log, topics.RideRequests, n)
		for rec := range records {
			c.Request(n, rec)
			at := place{n, rec.Offset}
			for _, call := range acknowledged[at] {
				c.Acknowledged(call, &rec)
			}
			delete(acknowledged, at)
		}
		if err := failed(); err != nil {
			return err
		}
	}
	for _, calls := range acknowledged {
		for _, call := range calls {
			c.Acknowledged(call, nil)
		}
	}
	for n := range log.Partitions() {
		records, failed := read(ctx, log, topics.Rides, n)
		c.Rides(n, records)
		if err := failed(); err != nil {
			return err
		}
	}
	return nil
}

// judgeClients compares what subscribers were sent with the log, and judges the
// histories.
func (d *drill) judgeClients(c *check.Checker, account *Account) {
	for _, name := range slices.Sorted(maps.Keys(d.history.journeys)) {
		j := d.history.journeys[name]
		if len(j.acknowledged) == 0 && len(j.events) == 0 {
			continue // nobody knows whether it was asked for
		}
		if j.partial {
			account.Partial++
		} else {
			events := make([]*starlingv1.RideEvent, 0, len(j.events))
			for _, e := range j.events {
				events = append(events, e.event)
			}
			c.Heard(name, events, j.endedSeen)
		}
		account.RideHistories.judge(&account.Findings, notLinearizableRide, name, rideModel, rideOperations(j.steps))
	}
	var live latency.Histogram
	c.Live = live.Record
	for _, f := range d.history.followed {
		c.Followed(f.ride, f.connections, f.whole)
	}
	account.Live = live.Summary()
	for vehicle, ops := range vehicleOperations(d.history.journeys) {
		account.VehicleHistories.judge(&account.Findings, notLinearizableVehicle, vehicle, vehicleModel, ops)
	}
}

// read returns every record of one partition in the checker's form, by offset;
// failed returns why it ended early, once the records were taken.
func read(ctx context.Context, log eventlog.Log, topic string, partition int32) (records iter.Seq[check.Record], failed func() error) {
	stored, failed := drillog.Read(ctx, log, topic, partition)
	return func(yield func(check.Record) bool) {
		for rec := range stored {
			if !yield(check.Record{Offset: rec.Offset, AppendMS: rec.AppendTimeMS, Key: rec.Key, Value: rec.Value}) {
				return
			}
		}
	}, failed
}
