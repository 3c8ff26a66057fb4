package rpcserver_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// raw is a client that speaks HTTP/2 by frames and keeps to nothing.
type raw struct {
	t    *testing.T
	conn net.Conn
	// authorization is sent with each call, if it is not empty.
	authorization string
	framer        *http2.Framer
	mu            sync.Mutex // of the framer's writing side
	next          uint32
	head          bytes.Buffer
	enc           *hpack.Encoder
	closed        chan struct{} // the server has closed the connection

	reading sync.Mutex
	ended   map[uint32]http2.ErrCode // streams that the server has ended
	goAway  bool
}

// dialRaw connects, with a window of 0 for every stream if unread is set.
func dialRaw(t *testing.T, addr string, unread bool) *raw {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	c := &raw{t: t, conn: conn, framer: http2.NewFramer(conn, conn), next: 1, closed: make(chan struct{}), ended: map[uint32]http2.ErrCode{}}
	c.enc = hpack.NewEncoder(&c.head)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = io.WriteString(conn, http2.ClientPreface)
	require.NoError(t, err)
	var settings []http2.Setting
	if unread {
		settings = append(settings, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	}
	require.NoError(t, c.framer.WriteSettings(settings...))
	go c.readAll()
	return c
}

func (c *raw) readAll() {
	defer close(c.closed)
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.mu.Lock()
				_ = c.framer.WriteSettingsAck()
				c.mu.Unlock()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				c.mu.Lock()
				_ = c.framer.WritePing(true, f.Data)
				c.mu.Unlock()
			}
		case *http2.GoAwayFrame:
			c.reading.Lock()
			c.goAway = true
			c.reading.Unlock()
		case *http2.RSTStreamFrame:
			c.note(f.StreamID, f.ErrCode)
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				c.note(f.StreamID, http2.ErrCodeNo)
			}
		}
	}
}

func (c *raw) note(stream uint32, code http2.ErrCode) {
	c.reading.Lock()
	defer c.reading.Unlock()
	c.ended[stream] = code
}

func (c *raw) endedStreams() int {
	c.reading.Lock()
	defer c.reading.Unlock()
	return len(c.ended)
}

// open begins a call. Errors of writing are the server's way to end the
// connection.
func (c *raw) open(path string) (uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.next
	c.next += 2
	c.head.Reset()
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "x"},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"authorization", c.authorization},
	} {
		if h[1] == "" {
			continue
		}
		if err := c.enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			return 0, err
		}
	}
	return id, c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.head.Bytes(), EndHeaders: true})
}

func (c *raw) data(stream uint32, end bool, b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.framer.WriteData(stream, end, b)
}

func (c *raw) reset(stream uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.framer.WriteRSTStream(stream, http2.ErrCodeCancel)
}

// call sends a whole request.
func (c *raw) call(path string, req proto.Message) (uint32, error) {
	body, err := proto.Marshal(req)
	require.NoError(c.t, err)
	id, err := c.open(path)
	if err != nil {
		return 0, err
	}
	return id, c.data(id, true, append(prefix(len(body)), body...))
}

// prefix announces a message of n bytes.
func prefix(n int) []byte { return binary.BigEndian.AppendUint32([]byte{0}, uint32(n)) }

// cost watches what the process uses. The clients of a test count too.
type cost struct {
	t       *testing.T
	base    uint64
	cpu     time.Duration
	stop    chan struct{}
	stopped chan struct{}
	peak    uint64
}

func watchCost(t *testing.T) *cost {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	c := &cost{t: t, base: m.HeapInuse + m.StackInuse, cpu: cpuTime(t), stop: make(chan struct{}), stopped: make(chan struct{})}
	go func() {
		defer close(c.stopped)
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			runtime.ReadMemStats(&m)
			c.peak = max(c.peak, m.HeapInuse+m.StackInuse)
			select {
			case <-c.stop:
				return
			case <-ticker.C:
			}
		}
	}()
	return c
}

// end returns the most memory that was in use beyond the start's, and the CPU
// time spent.
func (c *cost) end() (bytes int64, cpu time.Duration) {
	close(c.stop)
	<-c.stopped
	return int64(c.peak) - int64(c.base), cpuTime(c.t) - c.cpu
}

func cpuTime(t testing.TB) time.Duration {
	var u unix.Rusage
	require.NoError(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
