package overload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

type reportStream = grpc.BidiStreamingClient[starlingv1.StreamReportsRequest, starlingv1.StreamReportsResponse]

// idle are open and silent streams.
type idle struct {
	streams []reportStream
}

// openIdle opens n streams that live as long as ctx.
func openIdle(ctx context.Context, conns []grpc.ClientConnInterface, n int) (*idle, error) {
	x := &idle{}
	for i := range n {
		s, err := starlingv1.NewIngestServiceClient(conns[i%len(conns)]).StreamReports(ctx)
		if err != nil {
			return nil, fmt.Errorf("open idle stream %d: %w", i, err)
		}
		x.streams = append(x.streams, s)
	}
	return x, nil
}

// reportAll sends one report on every stream and waits for its acknowledgement. It
// returns how many fixes were acknowledged and the first fault.
func (x *idle) reportAll() (acked int64, err error) {
	for i, s := range x.streams {
		r := newVehicle(fmt.Sprintf("idle-%d", i), 1).next()
		r.SessionId, r.Sequence = 1, 1
		// A stream that has ended returns why in Recv.
		if serr := s.Send(&starlingv1.StreamReportsRequest{Report: r}); serr != nil && !errors.Is(serr, io.EOF) {
			err = errors.Join(err, serr)
		}
	}
	failed := 0
	for _, s := range x.streams {
		if _, rerr := s.Recv(); rerr != nil {
			if failed++; failed == 1 {
				err = errors.Join(err, rerr)
			}
			continue
		}
		acked++
		_ = s.CloseSend()
	}
	if err != nil {
		err = fmt.Errorf("%d of %d idle streams were not served in the end: %w", failed, len(x.streams), err)
	}
	return acked, err
}

// nonReader sends and does not read its acknowledgements until the stream is over.
type nonReader struct {
	id    string
	sent  int64 // good fixes
	acked int64
}

// Most fixes of its reports are refused, so that acknowledgements
// are long and fill the connection soon.
const refusedFixes = 20

// run sends until load is done or the server ends the stream, and only then
// reads what the server has sent: before it reads, gRPC does not even report
// that the stream has ended.
func (d *nonReader) run(ctx, load context.Context, conn grpc.ClientConnInterface, ended *tally) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := starlingv1.NewIngestServiceClient(conn).StreamReports(ctx)
	if err != nil {
		ended.add(err)
		return nil
	}
	sent := make(chan struct{})
	go func() { defer close(sent); d.send(load, s) }()
	<-load.Done()
	stop := time.AfterFunc(unreadPatience, cancel)
	defer stop.Stop()
	for {
		ack, err := s.Recv()
		if err != nil {
			cancel() // wakes a sender that waits for flow control
			<-sent
			if errors.Is(err, io.EOF) {
				err = nil
			}
			ended.add(err)
			return nil
		}
		d.acked = ack.AcknowledgedReports
	}
}

// unreadPatience bounds the wait for the end of a stream that is read at last.
const unreadPatience = 30 * time.Second

// send sends until load is done or the stream is over. It blocks when the server
// stops reading.
func (d *nonReader) send(load context.Context, s reportStream) {
	v := newVehicle(d.id, refusedFixes)
	for n := int64(1); load.Err() == nil; n++ {
		r := v.next()
		r.SessionId, r.Sequence = 1, n
		for _, f := range r.Fixes[1:] {
			f.Latitude = 91
		}
		d.sent++
		if err := s.Send(&starlingv1.StreamReportsRequest{Report: r}); err != nil {
			return // Recv returns why
		}
	}
	_ = s.CloseSend()
}

// rawCodec sends bytes as they are.
type rawCodec struct{ encoding.CodecV2 }

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

// garbage is what a garbage sender sends: no protobuf, a message above the
// server's default size, and one above what the server reads at all.
func garbage() ([][]byte, error) {
	v := newVehicle("garbage", 1)
	r := v.next()
	r.SessionId, r.Sequence = 1, 1
	good, err := proto.Marshal(&starlingv1.StreamReportsRequest{Report: r})
	if err != nil {
		return nil, err
	}
	messages := [][]byte{[]byte("\xff\x01garbage\xff"), good[:len(good)/2]}
	for _, size := range []int{200 << 10, 1 << 20} {
		long := protowire.AppendTag(append([]byte{}, good...), 15, protowire.BytesType)
		messages = append(messages, protowire.AppendBytes(long, make([]byte, size)))
	}
	return messages, nil
}

// sendGarbage sends garbage, one message a stream, until load is done.
func sendGarbage(load context.Context, conn grpc.ClientConnInterface, ended *tally) error {
	messages, err := garbage()
	if err != nil {
		return err
	}
	desc := &starlingv1.IngestService_ServiceDesc.Streams[0]
	codec := grpc.ForceCodecV2(rawCodec{encoding.GetCodecV2("proto")})
	for n := 0; ; n++ {
		if retry.Sleep(load, 10*time.Millisecond) != nil {
			return nil
		}
		s, err := conn.NewStream(load, desc, starlingv1.IngestService_StreamReports_FullMethodName, codec)
		if err == nil {
			_ = s.SendMsg(messages[n%len(messages)]) // RecvMsg returns why it failed
			err = s.RecvMsg(&starlingv1.StreamReportsResponse{})
		}
		if load.Err() != nil {
			return nil
		}
		if err == nil {
			return errors.New("garbage was acknowledged")
		}
		ended.add(status.Convert(err).Err())
	}
}
