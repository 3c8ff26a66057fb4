package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/budget"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/internal/rpcstatus"
)

const (
	// bodyStepBytes is what a body takes of the budget at first.
	bodyStepBytes = 16 << 10
	// largeAnswerBytes is what a large answer takes of the budget: 3 MiB from
	// the service, its messages and its JSON text.
	largeAnswerBytes = messageFactor * 3 << 20
	// messageFactor is how many times its size as protobuf an answer takes, with
	// its JSON text.
	messageFactor = 8
	// maxBeginning is how many watches may wait for large first messages at a time,
	// and maxOwnBeginning how many of one owner, those that wait for their turn
	// included.
	maxBeginning, maxOwnBeginning = 3, 16
	// beginPatience is how long a watch counts as one of these at most.
	beginPatience = 5 * time.Second
	// chargedBytes is the size from which a message counts.
	chargedBytes = 16 << 10
	// budgetGrace is how long a request is safe from giving way to another
	// client that holds as much.
	budgetGrace = time.Second
	// budgetPause is how long a message waits until it is tried again to charge it.
	budgetPause = 20 * time.Millisecond
)

// errBusy is returned when a budget is used up, and that nobody gives way.
var errBusy = errors.New("the budget is used up")

// isLarge reports whether the answer of a path may be large.
func isLarge(path string) bool {
	return path == "/v1/vehicles" || path == "/v1/vehicles:searchArea" || path == "/v1/vehicles:count"
}

// readBody reads a body, which is charged to the budget as it comes.
func (g *Gateway) readBody(w http.ResponseWriter, r *http.Request, control *http.ResponseController) ([]byte, error) {
	lease := g.bodies.Take(owner(r), bodyStepBytes, func() { _ = control.SetReadDeadline(time.Unix(1, 0)) })
	if lease == nil {
		return nil, errBusy
	}
	defer lease.Release()
	from := http.MaxBytesReader(w, r.Body, int64(g.cfg.MaxBodyBytes))
	read := make([]byte, 0, 512)
	charged := bodyStepBytes
	for {
		if len(read) == cap(read) {
			next := 2 * cap(read)
			if next > charged {
				if !lease.Grow(int64(next - charged)) {
					return nil, errBusy
				}
				charged = next
			}
			read = append(make([]byte, 0, next), read...)
		}
		n, err := from.Read(read[len(read):cap(read)])
		read = read[:len(read)+n]
		if errors.Is(err, io.EOF) {
			return read, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// owner is who holds what a request takes of a budget: whom the token names, over
// whichever connections, and where tokens name nobody the connection.
func owner(r *http.Request) any {
	if c := auth.CallerOf(r.Context()); c.Named() {
		return c.Principal()
	}
	return r.RemoteAddr
}

// admitLarge charges a request whose answer may be large until it ends, and has
// what comes of other calls be charged by its size. It returns false, having
// answered, when it is refused.
func (g *Gateway) admitLarge(w http.ResponseWriter, r *http.Request) (_ *http.Request, done func(), ok bool) {
	ctx, cancel := context.WithCancel(r.Context())
	c := callOf(ctx)
	evict := func() {
		cancel()
		c.out.cutOff()
	}
	if isLarge(r.URL.Path) {
		lease := g.answers.Take(owner(r), largeAnswerBytes, evict)
		if lease == nil {
			cancel()
			writeStatus(w, http.StatusTooManyRequests, busy("large answers are being read"))
			return r, nil, false
		}
		return r.WithContext(ctx), func() { lease.Release(); cancel() }, true
	}
	m := &message{pool: g.answers, owner: owner(r), evict: evict, first: func() {}}
	if beginsLarge(r.URL.Path) {
		if m.first = g.begin(ctx, m.owner); m.first == nil {
			cancel()
			writeStatus(w, http.StatusTooManyRequests, busy("watches begin"))
			return r, nil, false
		}
	}
	c.message = m
	return r.WithContext(ctx), func() { m.first(); m.written(); cancel() }, true
}

// beginsLarge reports whether the first message of a watch may be large. It comes
// at once, whatever happens.
func beginsLarge(path string) bool {
	return path == "/v1/vehicles:watchArea" || path == "/v1/vehicles:watchCounts"
}

// beginning are the watches that wait for large first messages, which their services
// hold meanwhile. Few do at a time, and few of one owner wait for their turn.
type beginning struct {
	atWork *semaphore.Weighted
	owners *budget.Shares[any]
}

// begin waits for the turn of a watch to begin. It returns what is to be called when
// its first message has been charged, which is called after a while in any case, or
// nil when its owner has too many or the time of a call is over.
func (g *Gateway) begin(ctx context.Context, owner any) (begun func()) {
	if _, over := g.beginning.owners.Take(owner, maxOwnBeginning); over {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, g.cfg.CallTimeout)
	defer cancel()
	if g.beginning.atWork.Acquire(limited, 1) != nil {
		g.beginning.owners.Release(owner)
		return nil
	}
	release := sync.OnceFunc(func() {
		g.beginning.atWork.Release(1)
		g.beginning.owners.Release(owner)
	})
	slow := time.AfterFunc(beginPatience, release)
	return func() { slow.Stop(); release() }
}

// message is what the answer to a call, or the newest message of a watch, takes of
// the budget for answers until it has been written: until the call ends, or the next
// message is asked for.
type message struct {
	pool  *budget.Pool
	owner any
	evict func()
	first func() // is called when the first has been charged
	lease *budget.Lease
}

// written gives back what the message before took.
func (m *message) written() {
	if m.lease != nil {
		m.lease.Release()
		m.lease = nil
	}
}

// came charges a message that has come, unless it is a small one: those are bounded
// by how many requests may be open. When the budget is used up it waits until those
// who hold it have had their time, and fails if nobody gives way then.
func (m *message) came(ctx context.Context, of any) error {
	defer m.first()
	p, ok := of.(proto.Message)
	if !ok {
		return nil
	}
	bytes := int64(proto.Size(p))
	if bytes < chargedBytes {
		return nil
	}
	for deadline := time.Now().Add(2 * budgetGrace); ; {
		if m.lease = m.pool.Take(m.owner, min(bytes*messageFactor, largeAnswerBytes), m.evict); m.lease != nil {
			return nil
		}
		if time.Now().After(deadline) {
			return busy("large answers are being read").Err()
		}
		if err := retry.Sleep(ctx, budgetPause); err != nil {
			return status.FromContextError(err).Err()
		}
	}
}

// busy asks the client to come back.
func busy(what string) *status.Status {
	return newStatus(codes.ResourceExhausted, reasonTooMany, fmt.Sprintf("too many %s", what), rpcstatus.RetryAfter(time.Second))
}
