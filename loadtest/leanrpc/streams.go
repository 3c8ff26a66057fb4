package leanrpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Streams is a connection of calls that the server answers with a stream of
// messages. One goroutine reads all of them, so a message costs no switch between
// goroutines. Open everything first, from one goroutine, then call Run.
type Streams struct {
	c     *Conn
	calls map[uint32]*streamed
}

// streamed is one call.
type streamed struct {
	number   int
	partial  []byte // of a message that is not whole yet
	consumed uint32 // bytes since the stream's last window update
}

// DialStreams connects to host:port.
func DialStreams(addr string) (*Streams, error) {
	c, err := Dial(addr)
	if err != nil {
		return nil, err
	}
	return &Streams{c: c, calls: make(map[uint32]*streamed)}, nil
}

// Close closes the connection; Run then returns an error.
func (s *Streams) Close() error { return s.c.Close() }

// Open begins a call of a method; number is what Run passes with its messages.
func (s *Streams) Open(method string, request []byte, number int) error {
	if len(request) > MaxRequestBytes {
		return fmt.Errorf("call %s: the request has %d bytes, more than %d", method, len(request), MaxRequestBytes)
	}
	if err := s.c.conn.SetDeadline(time.Now().Add(Patience)); err != nil {
		return fmt.Errorf("call %s: %w", method, err)
	}
	if s.c.sendWindow < int64(len(request)+prefixLen) {
		return fmt.Errorf("call %s: the requests of a connection have more bytes together than the server takes at once", method)
	}
	if err := s.c.write(method, request); err != nil {
		return fmt.Errorf("call %s: %w", method, err)
	}
	s.calls[s.c.stream] = &streamed{number: number}
	return nil
}

// Run reads until every call has ended or the connection does, and passes each
// message to take, which must not keep it, and the end of each call to ended: nil,
// or a gRPC status.
func (s *Streams) Run(take func(number int, message []byte) error, ended func(number int, err error) error) error {
	if err := s.c.conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	for len(s.calls) > 0 {
		frame, err := s.c.framer.ReadFrame()
		if err != nil {
			return fmt.Errorf("read from %s: %w", s.c.addr, err)
		}
		call := s.calls[frame.Header().StreamID]
		switch f := frame.(type) {
		case *http2.DataFrame:
			err = s.data(call, f, take)
		case *http2.MetaHeadersFrame:
			if f.StreamEnded() && call != nil {
				delete(s.calls, f.StreamID)
				err = ended(call.number, trailers(f))
			}
		case *http2.SettingsFrame:
			err = s.c.applySettings(f)
		case *http2.PingFrame:
			if !f.IsAck() {
				err = errors.Join(s.c.framer.WritePing(true, f.Data), s.c.flush())
			}
		case *http2.RSTStreamFrame:
			if call != nil {
				delete(s.calls, f.StreamID)
				err = ended(call.number, status.Error(codes.Unavailable, f.ErrCode.String()))
			}
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				err = fmt.Errorf("the server closes the connection: %v %q", f.ErrCode, f.DebugData())
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// data takes a frame apart into messages.
func (s *Streams) data(call *streamed, f *http2.DataFrame, take func(int, []byte) error) error {
	if s.c.consumed += f.Length; s.c.consumed >= windowBytes/2 {
		if err := s.c.framer.WriteWindowUpdate(0, s.c.consumed); err != nil {
			return err
		}
		s.c.consumed = 0
	}
	if call == nil {
		return s.c.flush()
	}
	if call.consumed += f.Length; call.consumed >= windowBytes/2 {
		if err := s.c.framer.WriteWindowUpdate(f.StreamID, call.consumed); err != nil {
			return err
		}
		call.consumed = 0
	}
	if err := s.c.flush(); err != nil {
		return err
	}
	rest := f.Data()
	if len(call.partial) > 0 {
		call.partial = append(call.partial, rest...)
		rest = call.partial
	}
	for len(rest) >= prefixLen {
		if rest[0] != 0 {
			return errors.New("a message is compressed")
		}
		end := prefixLen + int64(binary.BigEndian.Uint32(rest[1:]))
		if end > int64(len(rest)) {
			break
		}
		if err := take(call.number, rest[prefixLen:end]); err != nil {
			return err
		}
		rest = rest[end:]
	}
	call.partial = append(call.partial[:0], rest...)
	if f.StreamEnded() {
		return fmt.Errorf("a call ended without trailers: %w", io.ErrUnexpectedEOF)
	}
	return nil
}

// trailers returns the status in the headers that end a call.
func trailers(f *http2.MetaHeadersFrame) error {
	code, text := codes.Unknown, ""
	for _, field := range f.Fields {
		switch field.Name {
		case "grpc-status":
			if n, err := strconv.ParseUint(field.Value, 10, 32); err == nil {
				code = codes.Code(n)
			}
		case "grpc-message":
			text = field.Value
			if plain, err := url.PathUnescape(text); err == nil {
				text = plain
			}
		}
	}
	if code == codes.OK {
		return nil
	}
	return status.Error(code, text)
}
