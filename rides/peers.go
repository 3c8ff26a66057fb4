package rides

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// peers finds the owners of partitions in the log and asks them.
type peers struct {
	log     Log
	options []grpc.DialOption
	self    string

	mu         sync.Mutex
	conns      map[string]*grpc.ClientConn
	partitions map[int32]*peer
	closed     bool
}

// peer is the owner of one partition as it was last found.
type peer struct {
	mu      sync.Mutex // held while it is looked for
	address string     // empty when it has to be found
	foundAt time.Time
}

// lookAgain is how soon an owner is looked for again that was not there.
const lookAgain = 500 * time.Millisecond

// maxConns bounds the connections to other nodes; when there are more, those of
// nodes that are owners no more are closed with all others and made anew.
const maxConns = 64

func newPeers(log Log, self string, options []grpc.DialOption) *peers {
	return &peers{
		log: log, self: self, conns: make(map[string]*grpc.ClientConn), partitions: make(map[int32]*peer),
		options: append([]grpc.DialOption{
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		}, options...),
	}
}

// errNoOwner reports a partition of which no owner has been found.
var errNoOwner = errors.New("the owner of the ride's partition is not to be found")

// ask calls the owner of a partition. One that is not there, or is the owner no
// more, is looked for once more in the log.
func (p *peers) ask(ctx context.Context, n int32, call func(context.Context, starlingv1.RideOwnerServiceClient) error) error {
	// The node asks for itself: whom it answers, it has asked its own table.
	ctx = auth.WithCaller(ctx, &auth.Caller{})
	var failure error
	for range 2 {
		address, err := p.owner(ctx, n)
		if err != nil {
			return errors.Join(failure, err)
		}
		client, err := p.client(address)
		if err != nil {
			return err
		}
		err = call(ctx, client)
		if status.Code(err) != codes.Unavailable {
			return err
		}
		p.forget(n, address)
		failure = err
	}
	return failure
}

// owner returns where the owner of a partition answers.
func (p *peers) owner(ctx context.Context, n int32) (string, error) {
	at := p.at(n)
	at.mu.Lock()
	defer at.mu.Unlock()
	if at.address == "" && time.Since(at.foundAt) >= lookAgain {
		address, err := p.find(ctx, n)
		if err != nil {
			return "", err
		}
		at.address, at.foundAt = address, time.Now()
	}
	switch at.address {
	case "":
		return "", errNoOwner
	case p.self:
		// It is taking the partition over, or has just lost it.
		at.address = ""
		return "", errNoOwner
	}
	return at.address, nil
}

func (p *peers) at(n int32) *peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.partitions[n]
	if !ok {
		at = &peer{}
		p.partitions[n] = at
	}
	return at
}

// forget has an owner looked for again, unless somebody has found another.
func (p *peers) forget(n int32, address string) {
	at := p.at(n)
	at.mu.Lock()
	defer at.mu.Unlock()
	if at.address == address {
		at.address = ""
	}
}

// lookBack is how many of the last records of a partition are read for its owner:
// a zombie's may stand among them.
const lookBack = 64

// find reads from the log who owns a partition: the newest generation among its
// last records is the offset of its owner's takeover, which has the address. An
// empty address means that nobody is known.
func (p *peers) find(ctx context.Context, n int32) (string, error) {
	bounds, err := p.log.Bounds(ctx, topics.Rides)
	if err != nil {
		return "", fmt.Errorf("bounds of %s: %w", topics.Rides, err)
	}
	b := bounds[n]
	newest, takeover := int64(-1), (*starlingv1.RideTakeover)(nil)
	err = p.read(ctx, n, max(b.First, b.End-lookBack), b.End, func(offset int64, r *starlingv1.RideRecord) {
		generation := r.GetGeneration()
		if r.GetTakeover() != nil {
			generation = offset
		}
		if r.GetEpoch() == p.log.Epoch() && generation > newest {
			newest, takeover = generation, r.GetTakeover()
		}
	})
	if err != nil {
		return "", err
	}
	if newest >= b.First && takeover == nil {
		err = p.read(ctx, n, newest, newest+1, func(_ int64, r *starlingv1.RideRecord) { takeover = r.GetTakeover() })
	}
	return takeover.GetAddress(), err
}

// read passes the records of a partition of `rides` from one offset to another.
func (p *peers) read(ctx context.Context, n int32, from, to int64, fn func(int64, *starlingv1.RideRecord)) error {
	if from >= to {
		return nil
	}
	reader, err := p.log.NewReader(ctx, topics.Rides, map[int32]int64{n: from})
	if err != nil {
		return fmt.Errorf("read %s: %w", topics.Rides, err)
	}
	defer func() { _ = reader.Close() }()
	for next := from; next < to; {
		var batch eventlog.Batch
		if batch, err = reader.Poll(ctx); err != nil {
			return fmt.Errorf("read %s: %w", topics.Rides, err)
		}
		for _, stored := range batch.Records {
			var r starlingv1.RideRecord
			if next = stored.Offset + 1; stored.Offset >= to {
				break
			}
			if err := proto.Unmarshal(stored.Value, &r); err != nil {
				return fmt.Errorf("decode %s at offset %d: %w", topics.Rides, stored.Offset, err)
			}
			fn(stored.Offset, &r)
		}
	}
	return nil
}

// client returns the client of a node.
func (p *peers) client(address string) (starlingv1.RideOwnerServiceClient, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	conn, ok := p.conns[address]
	if !ok {
		if p.closed {
			return nil, errStopped
		}
		if len(p.conns) >= maxConns {
			p.closeAll()
		}
		var err error
		if conn, err = grpc.NewClient(address, p.options...); err != nil {
			return nil, fmt.Errorf("connect to the owner at %q: %w", address, err)
		}
		p.conns[address] = conn
	}
	return starlingv1.NewRideOwnerServiceClient(conn), nil
}

// closeAll closes all connections. The lock is held.
func (p *peers) closeAll() {
	for address, conn := range p.conns {
		_ = conn.Close()
		delete(p.conns, address)
	}
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.closeAll()
}

// owners returns where the owners of partitions answer, each with one of its
// partitions.
func (p *peers) owners(ctx context.Context, partitions []int32) (map[string]int32, error) {
	owners := make(map[string]int32)
	for _, n := range partitions {
		address, err := p.owner(ctx, n)
		if err != nil {
			return nil, err
		}
		owners[address] = n
	}
	return owners, nil
}

// peerError is what a caller receives when an owner could not be asked: the
// owner's own refusal where it is one that the caller can use.
func peerError(ctx context.Context, err error) error {
	switch code := status.Code(err); {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case code == codes.NotFound, code == codes.InvalidArgument, code == codes.DeadlineExceeded, code == codes.Canceled:
		return err
	}
	return rpcstatus.Error(codes.Unavailable, rpcstatus.Reason{Domain: domain, Name: "OWNER_UNREACHABLE"},
		"the owner of the ride's partition can't be asked now", rpcstatus.RetryAfter(time.Second))
}
