// Package leanrpc calls gRPC methods over one connection, one call at a time and
// with little CPU. A load generator that shares the CPUs with the server it
// measures would otherwise measure its own client: grpc-go hands a call through
// three goroutines and spends more on it than the server does, because it has to
// serve many callers, and this need not.
//
// It speaks gRPC over HTTP/2 without TLS (the protocol's PROTOCOL-HTTP2.md, RFC
// 9113) on the framer of golang.org/x/net/http2.
package leanrpc

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// Patience is how long a call may take.
	Patience = 10 * time.Second
	// MaxRequestBytes is the longest request: it fits one frame of any server. One
	// with a smaller window for a stream is refused by the connection.
	MaxRequestBytes = 16<<10 - prefixLen

	// windowBytes is what the server may send before it gets a window update, on
	// the connection and on a stream.
	windowBytes = 1 << 20
	prefixLen   = 5 // compressed or not, and the length of the message
	// defaultWindowBytes is what a connection has by default (RFC 9113, 6.9.2).
	defaultWindowBytes = 65535
)

// Conn is a connection. One goroutine at a time may use it; after an error that
// is not a gRPC status it can only be closed. Between calls it reads nothing, so
// a server that pings an idle connection and misses the answer closes it.
type Conn struct {
	addr string
	conn net.Conn

	framer  *http2.Framer
	out     bytes.Buffer // frames that are written with the next flush
	headers bytes.Buffer
	encoder *hpack.Encoder

	stream     uint32 // number of the newest call
	sendWindow int64  // bytes that the server accepts on the connection
	consumed   uint32 // bytes read on the connection since its last window update
	inStream   uint32 // bytes read of the newest call's stream
	message    []byte // the message of the newest call
	answer     []byte // what was read for it
}

// Dial connects to host:port.
func Dial(addr string) (*Conn, error) {
	conn, err := net.DialTimeout("tcp", addr, Patience)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	c := &Conn{addr: addr, conn: conn, sendWindow: defaultWindowBytes}
	c.framer = http2.NewFramer(&c.out, bufio.NewReaderSize(conn, 32<<10))
	c.framer.SetReuseFrames()
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.encoder = hpack.NewEncoder(&c.headers)
	c.out.WriteString(http2.ClientPreface)
	if err := errors.Join(
		c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: windowBytes}, http2.Setting{ID: http2.SettingEnablePush}),
		c.framer.WriteWindowUpdate(0, windowBytes-defaultWindowBytes), c.flush(),
	); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("greet %s: %w", addr, err)
	}
	return c, nil
}

// Close closes the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Call sends a request to a method, "/package.Service/Method", and returns the
// answer, which is good until the next call. An error that the server answers is
// a gRPC status.
func (c *Conn) Call(method string, request []byte) ([]byte, error) {
	if len(request) > MaxRequestBytes {
		return nil, fmt.Errorf("call %s: the request has %d bytes, more than %d", method, len(request), MaxRequestBytes)
	}
	if err := c.conn.SetDeadline(time.Now().Add(Patience)); err != nil {
		return nil, fmt.Errorf("call %s: %w", method, err)
	}
	for c.sendWindow < int64(len(request)+prefixLen) {
		if _, err := c.read(); err != nil {
			return nil, fmt.Errorf("call %s: wait for the send window: %w", method, err)
		}
	}
	if err := c.write(method, request); err != nil {
		return nil, fmt.Errorf("call %s: %w", method, err)
	}
	c.answer, c.inStream = c.answer[:0], 0
	for {
		end, err := c.read()
		if err != nil {
			return nil, fmt.Errorf("call %s: %w", method, err)
		}
		if end != nil {
			return c.decode(method, end)
		}
	}
}

// write writes the frames of a request at once.
func (c *Conn) write(method string, request []byte) error {
	if c.stream == 0 {
		c.stream = 1
	} else {
		c.stream += 2
	}
	c.headers.Reset()
	for _, f := range [...]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: method}, {Name: ":authority", Value: c.addr},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	} {
		if err := c.encoder.WriteField(f); err != nil {
			return err
		}
	}
	c.message = append(c.message[:0], 0) // not compressed
	c.message = binary.BigEndian.AppendUint32(c.message, uint32(len(request)))
	c.message = append(c.message, request...)
	c.sendWindow -= int64(len(c.message))
	return errors.Join(
		c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: c.stream, BlockFragment: c.headers.Bytes(), EndHeaders: true}),
		c.framer.WriteData(c.stream, true, c.message), c.flush())
}

// read reads one frame and returns the header that ends the call, if it is that.
func (c *Conn) read() (end *http2.MetaHeadersFrame, err error) {
	frame, err := c.framer.ReadFrame()
	if err != nil {
		return nil, err
	}
	// Frames of a stream that has ended are not of this call: the server may
	// reset one whose request it did not read to its end.
	mine := frame.Header().StreamID == c.stream
	switch f := frame.(type) {
	case *http2.DataFrame:
		if mine {
			c.answer = append(c.answer, f.Data()...)
		}
		if mine && f.StreamEnded() {
			return nil, errors.New("the answer ended without trailers: this is not a gRPC server")
		}
		return nil, c.grant(f, mine)
	case *http2.MetaHeadersFrame:
		if mine && f.StreamEnded() {
			return f, nil
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.sendWindow += int64(f.Increment)
		}
	case *http2.SettingsFrame:
		return nil, c.applySettings(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			return nil, errors.Join(c.framer.WritePing(true, f.Data), c.flush())
		}
	case *http2.RSTStreamFrame:
		if mine {
			return nil, fmt.Errorf("the server ended the stream: %v", f.ErrCode)
		}
	case *http2.GoAwayFrame:
		// A server that shuts down gracefully answers the calls it has accepted.
		if f.ErrCode != http2.ErrCodeNo || f.LastStreamID < c.stream {
			return nil, fmt.Errorf("the server closes the connection: %v %q", f.ErrCode, f.DebugData())
		}
	}
	return nil, nil
}

// applySettings applies the server's settings.
func (c *Conn) applySettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	if size, ok := f.Value(http2.SettingHeaderTableSize); ok {
		c.encoder.SetMaxDynamicTableSizeLimit(size)
	}
	if window, ok := f.Value(http2.SettingInitialWindowSize); ok && window < prefixLen+MaxRequestBytes {
		return fmt.Errorf("the server gives a stream a window of %d bytes, less than a request may have", window)
	}
	return errors.Join(c.framer.WriteSettingsAck(), c.flush())
}

// grant sends window updates, when half of a window has been used.
func (c *Conn) grant(f *http2.DataFrame, mine bool) error {
	var errs []error
	if c.consumed += f.Length; c.consumed >= windowBytes/2 {
		errs = append(errs, c.framer.WriteWindowUpdate(0, c.consumed))
		c.consumed = 0
	}
	if mine {
		c.inStream += f.Length
	}
	if c.inStream >= windowBytes/2 {
		errs = append(errs, c.framer.WriteWindowUpdate(c.stream, c.inStream))
		c.inStream = 0
	}
	if errs == nil {
		return nil
	}
	return errors.Join(append(errs, c.flush())...)
}

func (c *Conn) flush() error {
	_, err := c.out.WriteTo(c.conn)
	return err
}

// decode returns the answer in what was read.
func (c *Conn) decode(method string, end *http2.MetaHeadersFrame) ([]byte, error) {
	var code, text string
	for _, f := range end.Fields {
		switch f.Name {
		case "grpc-status":
			code = f.Value
		case "grpc-message":
			text = f.Value
		}
	}
	number, err := strconv.ParseUint(code, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("call %s: the answer has no grpc-status", method)
	}
	if number != 0 {
		if plain, err := url.PathUnescape(text); err == nil {
			text = plain
		}
		return nil, status.Error(codes.Code(number), text)
	}
	if len(c.answer) < prefixLen || c.answer[0] != 0 {
		return nil, fmt.Errorf("call %s: the answer is not one message without compression", method)
	}
	if n := binary.BigEndian.Uint32(c.answer[1:]); int(n) != len(c.answer)-prefixLen {
		return nil, fmt.Errorf("call %s: %w: a message of %d bytes in %d", method, io.ErrUnexpectedEOF, n, len(c.answer)-prefixLen)
	}
	return c.answer[prefixLen:], nil
}
