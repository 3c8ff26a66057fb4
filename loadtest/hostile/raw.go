package hostile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// raw is a gRPC client that speaks HTTP/2 by frames and keeps only to what the
// server enforces: the windows.
type raw struct {
	conn   net.Conn
	framer *http2.Framer
	unread bool // never lets the server send more
	token  string
	closed chan struct{} // the server has closed the connection

	mu     sync.Mutex // of the writing side and of what follows
	credit *sync.Cond
	window int64 // bytes that the connection may still send
	gone   bool
	next   uint32
	head   bytes.Buffer
	enc    *hpack.Encoder
	ended  map[uint32]struct{} // streams that the server has ended
}

// firstWindow is what HTTP/2 lets a connection send before it hears more.
const firstWindow = 65535

// writePatience is how long a write may wait for a server that does not read.
const writePatience = 20 * time.Second

// dialRaw connects. Unread sets the window of every stream to zero, so that the
// server can't send any answer.
func dialRaw(addr, token string, unread bool) (*raw, error) {
	conn, err := net.DialTimeout("tcp", addr, writePatience)
	if err != nil {
		return nil, err
	}
	c := &raw{conn: conn, framer: http2.NewFramer(conn, conn), unread: unread, token: token, closed: make(chan struct{}), window: firstWindow, next: 1, ended: map[uint32]struct{}{}}
	c.credit = sync.NewCond(&c.mu)
	c.enc = hpack.NewEncoder(&c.head)
	var settings []http2.Setting
	if unread {
		settings = append(settings, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	}
	_, err = io.WriteString(conn, http2.ClientPreface)
	if err = errors.Join(err, c.framer.WriteSettings(settings...)); err != nil {
		_ = conn.Close()
		return nil, err
	}
	go c.readAll()
	return c, nil
}

func (c *raw) close() { _ = c.conn.Close(); <-c.closed }

// readAll answers what a server checks and notes what it ends.
func (c *raw) readAll() {
	defer close(c.closed)
	defer func() {
		c.mu.Lock()
		c.gone = true
		c.mu.Unlock()
		c.credit.Broadcast()
	}()
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return
		}
		c.mu.Lock()
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = c.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = c.framer.WritePing(true, f.Data)
			}
		case *http2.WindowUpdateFrame:
			if f.StreamID == 0 {
				c.window += int64(f.Increment)
				c.credit.Broadcast()
			}
		case *http2.DataFrame:
			if n := f.Header().Length; n > 0 && !c.unread {
				_ = c.framer.WriteWindowUpdate(0, n)
				if !f.StreamEnded() {
					_ = c.framer.WriteWindowUpdate(f.StreamID, n)
				}
			}
		case *http2.RSTStreamFrame:
			c.ended[f.StreamID] = struct{}{}
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				c.ended[f.StreamID] = struct{}{}
			}
		}
		c.mu.Unlock()
	}
}

// over is how many streams the server has ended, or all of n if it has ended the
// connection.
func (c *raw) over(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return n
	}
	return min(n, len(c.ended))
}

// open begins a call.
func (c *raw) open(path string) (uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.next
	c.next += 2
	c.head.Reset()
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "x"},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"authorization", "Bearer " + c.token},
	} {
		if err := c.enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			return 0, err
		}
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(writePatience))
	return id, c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.head.Bytes(), EndHeaders: true})
}

// frameBytes is the size of the frames in which data is sent.
const frameBytes = 16 << 10

var errEnded = errors.New("the server has ended it")

// data sends bytes of a call as the connection's window allows.
func (c *raw) data(stream uint32, end bool, b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for first := true; first || len(b) > 0; first = false {
		n := min(len(b), frameBytes)
		for c.window < int64(n) && !c.gone {
			c.credit.Wait()
		}
		if _, ended := c.ended[stream]; ended || c.gone {
			return errEnded
		}
		c.window -= int64(n)
		_ = c.conn.SetWriteDeadline(time.Now().Add(writePatience))
		if err := c.framer.WriteData(stream, end && n == len(b), b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (c *raw) reset(stream uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.framer.WriteRSTStream(stream, http2.ErrCodeCancel)
}

// call sends a whole request.
func (c *raw) call(path string, req proto.Message) (uint32, error) {
	body, err := proto.Marshal(req)
	if err != nil {
		return 0, fmt.Errorf("encode a request: %w", err)
	}
	id, err := c.open(path)
	if err != nil {
		return 0, err
	}
	return id, c.data(id, true, append(prefix(len(body)), body...))
}

// prefix announces a message of n bytes.
func prefix(n int) []byte { return binary.BigEndian.AppendUint32([]byte{0}, uint32(n)) }
