package rpcserver

import (
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/budget"
)

const (
	// chargedBytes is the size from which an answer counts: smaller ones are
	// bounded by how many calls there are.
	chargedBytes = 1 << 10
	// answerGrace is how long a client whose answers are unread is safe from
	// being disconnected when the budget is used up.
	answerGrace = 2 * time.Second
	// heavyGrace is how long the client that leaves most unread is safe when half
	// of the budget is used up.
	heavyGrace = 250 * time.Millisecond
	// fairShare is which part of the budget a reader may leave unread and still be
	// served when half of it is used up.
	fairShare = 8
	// sweepInterval is how often answers and requests are looked at that take
	// too long.
	sweepInterval = 500 * time.Millisecond
)

// answers knows what was encoded and not yet written to a connection, because
// its client does not read. It is safe for concurrent use.
type answers struct {
	mu    sync.Mutex
	bytes int64
	all   budget.Chain[charge]
	// byReader has those with unread answers.
	byReader map[reader]int64
}

// reader is whom an answer is for: who its caller's token names, over whichever
// connections, and where tokens name nobody its connection.
type reader struct {
	principal string
	conn      *conn
}

func newAnswers() *answers {
	return &answers{all: budget.NewChain(ofAll), byReader: map[reader]int64{}}
}

// conn is a connection of a client.
type conn struct {
	net.Conn
	remote  *remoteAddr
	answers *answers
	large   atomic.Int64 // calls for large answers, waiting or at work
	cutOff  atomic.Bool

	// answers.mu guards these.
	bytes  int64 // unread
	unread budget.Chain[charge]
	closed bool
}

// remoteAddr is a client's address that knows the connection: gRPC passes it on with
// each call.
type remoteAddr struct {
	net.Addr
	conn *conn
}

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// Close implements net.Conn. gRPC forgets what it had not written, so that the
// garbage collector has it.
func (c *conn) Close() error {
	c.forget()
	return c.Conn.Close()
}

// forget gives back what the connection has not read.
func (c *conn) forget() {
	c.answers.mu.Lock()
	defer c.answers.mu.Unlock()
	c.closed = true
	for c.unread.Oldest() != nil {
		c.unread.Oldest().releaseLocked()
	}
}

// listener reports the answers of the connections that it accepts.
type listener struct {
	net.Listener
	answers *answers
}

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	known := &conn{Conn: c, answers: l.answers, unread: budget.NewChain(ofConn)}
	known.remote = &remoteAddr{c.RemoteAddr(), known}
	return known, nil
}

// connOf is the connection that a call came on; nil for one in memory.
func connOf(ctx context.Context) *conn {
	if p, ok := peer.FromContext(ctx); ok {
		if from, ok := p.Addr.(*remoteAddr); ok {
			return from.conn
		}
	}
	return nil
}

// recipientOf is to whom the answers go of a call that came on a connection.
func recipientOf(from *conn, c *auth.Caller) recipient {
	r := recipient{conn: from}
	if c.Named() {
		r.reader.principal = c.Principal()
	} else {
		r.reader.conn = from
	}
	return r
}

// recipient is to whom and over which connection answers go.
type recipient struct {
	conn   *conn
	reader reader
}

// unread are bytes that were not read.
type unread struct{ all, ofConn, ofReader int64 }

// unread returns what all clients, and one, have not read.
func (a *answers) unread(r recipient) unread {
	a.mu.Lock()
	defer a.mu.Unlock()
	u := unread{all: a.bytes, ofReader: a.byReader[r.reader]}
	if r.conn != nil {
		u.ofConn = r.conn.bytes
	}
	return u
}

// late returns the connections with an answer that is older than age, those with
// the oldest first: as many as hold so many bytes together.
func (a *answers) late(age time.Duration, bytes int64) []*conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	var found []*conn
	for c := a.all.Oldest(); c != nil && bytes > 0; c = c.inAll.Newer() {
		if time.Since(c.since) < age {
			break
		}
		if !slices.Contains(found, c.to.conn) {
			found = append(found, c.to.conn)
			bytes -= c.to.conn.bytes
		}
	}
	return found
}

// heaviest returns the connection, with an answer that is older than age, on which
// the reader who has left most unread, if that is more than some, has left most.
func (a *answers) heaviest(age time.Duration, more int64) []*conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	var most reader
	found := false
	for r, bytes := range a.byReader {
		if bytes > more {
			most, more, found = r, bytes, true
		}
	}
	if !found {
		return nil
	}
	var its *conn
	for c := a.all.Oldest(); c != nil; c = c.inAll.Newer() {
		if time.Since(c.since) < age {
			break
		}
		if c.to.reader == most && (its == nil || c.to.conn.bytes > its.bytes) {
			its = c.to.conn
		}
	}
	if its == nil {
		return nil
	}
	return []*conn{its}
}

// charge is an encoded answer on its way. As the pool of its buffer it learns
// when gRPC has written the answer or given it up.
type charge struct {
	answers       *answers
	to            recipient
	bytes         int64
	since         time.Time
	held          bool                 // not released
	inAll, inConn budget.Links[charge] // in the chain of all and in the connection's
	inner         mem.BufferSlice      // what holds the bytes
}

func ofAll(c *charge) *budget.Links[charge]  { return &c.inAll }
func ofConn(c *charge) *budget.Links[charge] { return &c.inConn }

// Get implements mem.BufferPool; nothing is ever taken from it.
func (c *charge) Get(length int) *[]byte { b := make([]byte, length); return &b }

// Put implements mem.BufferPool. It is called when nobody holds the answer any
// more.
func (c *charge) Put(*[]byte) {
	c.release()
	c.inner.Free()
}

func (c *charge) release() {
	c.answers.mu.Lock()
	defer c.answers.mu.Unlock()
	c.releaseLocked()
}

func (c *charge) releaseLocked() {
	if !c.held {
		return
	}
	c.held = false
	c.to.conn.unread.Remove(c)
	a := c.answers
	a.all.Remove(c)
	a.bytes -= c.bytes
	c.to.conn.bytes -= c.bytes
	if a.byReader[c.to.reader] -= c.bytes; a.byReader[c.to.reader] <= 0 {
		delete(a.byReader, c.to.reader)
	}
}

// charged is an answer and whom it is charged to: nobody without a connection.
type charged struct {
	message any
	to      recipient
	encoded func() // called when it is encoded; may be nil
}

// chargingCodec charges *charged messages and hands all others on.
type chargingCodec struct{ encoding.CodecV2 }

// Marshal implements encoding.CodecV2.
func (c chargingCodec) Marshal(v any) (mem.BufferSlice, error) {
	a, ok := v.(*charged)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	if a.encoded != nil {
		defer a.encoded()
	}
	data, err := c.CodecV2.Marshal(a.message)
	if err != nil || a.to.conn == nil || data.Len() < chargedBytes {
		return data, err
	}
	var whole []byte
	inner := data
	if len(data) == 1 {
		whole = data[0].ReadOnlyData()
	} else {
		whole, inner = data.Materialize(), nil
		data.Free()
	}
	return mem.BufferSlice{mem.NewBuffer(&whole, a.to.charge(int64(len(whole)), inner))}, nil
}

func (r recipient) charge(bytes int64, inner mem.BufferSlice) *charge {
	c, a := r.conn, r.conn.answers
	ch := &charge{answers: a, to: r, bytes: bytes, since: time.Now(), inner: inner}
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.closed {
		return ch
	}
	ch.held = true
	a.all.Push(ch)
	c.unread.Push(ch)
	a.bytes += bytes
	c.bytes += bytes
	a.byReader[r.reader] += bytes
	return ch
}
