// Package baseline is the pipeline that Starling is measured against: the least
// that a service could do which keeps what it acknowledges. It takes the same
// messages over gRPC with the generated code, marshals each into the same log
// with the same durability, acknowledges cumulatively, and reads them back with
// a reader that only unmarshals. It validates nothing, knows no duplicates and
// answers no question.
package baseline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// maxInFlight bounds the reports of one stream that are not durable yet, as
// ingest does by default.
const maxInFlight = 1024

// Pipeline is the service and the reader. Its methods are safe for concurrent
// use.
type Pipeline struct {
	starlingv1.UnimplementedIngestServiceServer

	log                                          eventlog.Log
	acked, appendedFixes, readRecords, readFixes atomic.Int64
}

// New makes a pipeline on a log.
func New(log eventlog.Log) *Pipeline { return &Pipeline{log: log} }

// Counts are what a pipeline has done.
type Counts struct {
	AckedReports, AppendedFixes, ReadRecords, ReadFixes int64
}

// Counts returns what has been done so far.
func (p *Pipeline) Counts() Counts {
	return Counts{p.acked.Load(), p.appendedFixes.Load(), p.readRecords.Load(), p.readFixes.Load()}
}

// stream is one client's stream. Reports become durable partition by partition,
// so they are ticked off and acknowledged up to the first that is missing.
type stream struct {
	mu      sync.Mutex
	durable [maxInFlight]bool // by number modulo its length
	prefix  int64             // all reports up to this number are durable
	err     error

	slots chan struct{} // one token for each report in flight
	wake  chan struct{} // has a token when prefix or err has changed
}

// completion is called when one report is durable.
type completion struct {
	s      *stream
	number int64
}

// Done implements eventlog.Completion.
func (c *completion) Done(_ int64, err error) {
	s := c.s
	s.mu.Lock()
	if err != nil && s.err == nil {
		s.err = err
	}
	s.durable[c.number%maxInFlight] = err == nil
	before := s.prefix
	for s.durable[(s.prefix+1)%maxInFlight] {
		s.durable[(s.prefix+1)%maxInFlight] = false
		s.prefix++
	}
	advanced := s.prefix - before
	failed := s.err != nil
	s.mu.Unlock()
	for range advanced {
		<-s.slots
	}
	if advanced > 0 || failed {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// StreamReports implements the service. It returns as soon as the stream has
// failed; gRPC then ends the receiver.
func (p *Pipeline) StreamReports(g grpc.BidiStreamingServer[starlingv1.StreamReportsRequest, starlingv1.StreamReportsResponse]) error {
	s := &stream{slots: make(chan struct{}, maxInFlight), wake: make(chan struct{}, 1)}
	received := make(chan end, 1)
	go func() {
		n, err := p.receive(g.Context(), g, s)
		received <- end{n, err}
	}()
	return p.acknowledge(g, s, received)
}

// end is how a client's side of a stream ended: after so many reports.
type end struct {
	reports int64
	err     error
}

// receive appends the client's reports until it ends its side, and returns how
// many there were.
func (p *Pipeline) receive(ctx context.Context, g grpc.BidiStreamingServer[starlingv1.StreamReportsRequest, starlingv1.StreamReportsResponse], s *stream) (int64, error) {
	var number int64
	for {
		req, err := g.Recv()
		if errors.Is(err, io.EOF) {
			return number, nil
		}
		if err != nil {
			return number, err
		}
		report := req.GetReport()
		if report.GetVehicleId() == "" {
			return number, status.Error(codes.InvalidArgument, "vehicle_id must be set")
		}
		key := []byte(report.GetVehicleId())
		report.VehicleId = "" // it is the record's key
		value, err := proto.Marshal(&starlingv1.LocationRecord{Event: &starlingv1.LocationRecord_Report{Report: report}})
		if err != nil {
			return number, status.Errorf(codes.Internal, "marshal record: %v", err)
		}
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return number, ctx.Err()
		}
		number++
		partition := eventlog.PartitionOf(key, p.log.Partitions())
		err = p.log.Append(ctx, topics.Locations, partition, eventlog.Record{Key: key, Value: value}, &completion{s, number})
		if err != nil {
			return number, status.Errorf(codes.Unavailable, "append: %v", err)
		}
		p.appendedFixes.Add(int64(len(report.GetFixes())))
	}
}

// acknowledge sends what is durable to the client, until everything is.
func (p *Pipeline) acknowledge(g grpc.BidiStreamingServer[starlingv1.StreamReportsRequest, starlingv1.StreamReportsResponse], s *stream, received <-chan end) error {
	var sent int64
	total := int64(-1) // not known before the client has ended its side
	for sent != total {
		select {
		case <-s.wake:
		case e := <-received:
			if e.err != nil {
				return e.err
			}
			total = e.reports
		case <-g.Context().Done():
			return g.Context().Err()
		}
		s.mu.Lock()
		prefix, err := s.prefix, s.err
		s.mu.Unlock()
		if prefix > sent {
			if err := g.Send(&starlingv1.StreamReportsResponse{AcknowledgedReports: prefix}); err != nil {
				return err
			}
			p.acked.Add(prefix - sent)
			sent = prefix
		}
		if err != nil {
			return status.Errorf(codes.Unavailable, "append: %v", err)
		}
	}
	return nil
}

// Read unmarshals every record of the log until ctx is done, which is no error.
func (p *Pipeline) Read(ctx context.Context) error {
	bounds, err := p.log.Bounds(ctx, topics.Locations)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	start := make(map[int32]int64, len(bounds))
	for partition, b := range bounds {
		start[int32(partition)] = b.First
	}
	reader, err := p.log.NewReader(ctx, topics.Locations, start)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	var record starlingv1.LocationRecord
	for {
		batch, err := reader.Poll(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return reader.Close()
			}
			return errors.Join(fmt.Errorf("read: %w", err), reader.Close())
		}
		var fixes int64
		for i := range batch.Records {
			if err := proto.Unmarshal(batch.Records[i].Value, &record); err != nil {
				return errors.Join(fmt.Errorf("read partition %d: %w", batch.Partition, err), reader.Close())
			}
			fixes += int64(len(record.GetReport().GetFixes()))
		}
		p.readRecords.Add(int64(len(batch.Records)))
		p.readFixes.Add(fixes)
	}
}
