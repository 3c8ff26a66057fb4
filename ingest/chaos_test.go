package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/ingest"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// chaosLog settles appends late, each partition at its own pace, and fails some
// before and some after it has stored them.
type chaosLog struct {
	mu     sync.Mutex
	stored map[string]int // copies, by vehicle and sequence
	queues [partitions]chan heldAppend
	wg     sync.WaitGroup
}

func newChaosLog(t *testing.T, seed uint64) *chaosLog {
	l := &chaosLog{stored: map[string]int{}}
	for i := range l.queues {
		l.queues[i] = make(chan heldAppend, 16)
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		l.wg.Go(func() {
			for h := range l.queues[i] {
				if random.IntN(4) == 0 {
					time.Sleep(time.Duration(random.IntN(500)) * time.Microsecond)
				}
				h.done.Done(0, l.store(h, random.IntN(150)))
			}
		})
	}
	t.Cleanup(func() {
		for i := range l.queues {
			close(l.queues[i])
		}
		l.wg.Wait()
	})
	return l
}

func (l *chaosLog) store(h heldAppend, dice int) error {
	switch dice {
	case 0:
		return errors.New("timed out before it was stored")
	case 1:
		return fmt.Errorf("append: %w", eventlog.ErrFull)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stored[chaosKey(h.rec.key, h.rec.location.Report.Sequence)]++
	if dice == 2 {
		return errors.New("timed out after it was stored")
	}
	return nil
}

func (l *chaosLog) has(vehicle string, sequence int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stored[chaosKey(vehicle, sequence)] > 0
}

func chaosKey(vehicle string, sequence int64) string { return fmt.Sprintf("%s/%d", vehicle, sequence) }

func (l *chaosLog) Append(ctx context.Context, topic string, partition int32, rec eventlog.Record, done eventlog.Completion) error {
	h := heldAppend{rec: storedRecord{topic: topic, partition: partition, key: string(rec.Key)}, done: done}
	var location wire.Location
	if err := location.Unmarshal(rec.Value); err != nil {
		return err
	}
	h.rec.location = location
	select {
	case l.queues[partition] <- h:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Clients with several vehicles on a stream send everything until it is
// acknowledged, over a log that fails and streams that break. Whatever is
// acknowledged is stored at that moment, and in the end everything is.
func TestAcknowledgedIsDurable(t *testing.T) {
	const clients, total = 6, 400
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			log := newChaosLog(t, seed)
			d := open(t, log, func(c *ingest.Config) {
				c.Limits.StreamReports = 50
				c.Limits.RetryDelay = time.Millisecond
			})
			var wg sync.WaitGroup
			for k := range clients {
				wg.Go(func() { chaosClient(t, d, log, k, total, rand.New(rand.NewPCG(seed, uint64(1000+k)))) })
			}
			wg.Wait()
			for k := range clients {
				for i := range int64(total) {
					require.True(t, log.has(chaosVehicle(k, i), i+1))
				}
			}
			require.Eventually(t, func() bool { return d.metric(t, "starling_ingest_in_flight_bytes") == 0 }, patience, time.Millisecond)
			require.Zero(t, d.metric(t, "starling_ingest_in_flight_reports"))
		})
	}
}

func chaosVehicle(k int, i int64) string { return fmt.Sprintf("v-%d-%d", k, i%5) }

func chaosClient(t *testing.T, d *endpoint, log *chaosLog, k int, total int64, random *rand.Rand) {
	acked := int64(0) // of all reports
	for acked < total {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		s, err := d.client.StreamReports(ctx)
		if err != nil {
			t.Errorf("open a stream: %v", err)
			cancel()
			return
		}
		breakAt := acked + 1 + random.Int64N(total)
		first := acked
		go func() {
			for i := first; i < total; i++ {
				r := report(i+1, 1)
				r.VehicleId = chaosVehicle(k, i)
				if s.Send(&starlingv1.StreamReportsRequest{Report: r}) != nil {
					return
				}
			}
		}()
		for acked < total {
			ack, err := s.Recv()
			if err != nil {
				if code := status.Code(err); code != codes.Unavailable && code != codes.ResourceExhausted {
					t.Errorf("unexpected end: %v", err)
				}
				break
			}
			for ; acked < first+ack.AcknowledgedReports; acked++ {
				if !log.has(chaosVehicle(k, acked), acked+1) {
					t.Errorf("client %d: report %d was acknowledged and is not stored", k, acked+1)
				}
			}
			if acked >= breakAt {
				break
			}
		}
		cancel()
	}
}
