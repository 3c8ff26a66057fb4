package rideevents

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// webSocket is a client's side of RFC 6455 that costs little: one goroutine reads,
// and what it sends is masked with zeros.
type webSocket struct {
	conn    net.Conn
	in      *bufio.Reader
	writing sync.Mutex
	message []byte
}

// Opcodes of frames.
const (
	opContinuation = 0x0
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
)

// dialWebSocket opens a connection to host:port.
func dialWebSocket(addr, path, protocol string) (*webSocket, error) {
	const patience = 30 * time.Second
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	w := &webSocket{conn: conn, in: bufio.NewReaderSize(conn, 32<<10)}
	err = errors.Join(conn.SetDeadline(time.Now().Add(patience)), w.upgrade(addr, path, protocol), conn.SetDeadline(time.Time{}))
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("upgrade to WebSocket at %s: %w", addr, err)
	}
	return w, nil
}

func (w *webSocket) upgrade(addr, path, protocol string) error {
	if _, err := fmt.Fprintf(w.conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: c3RhcmxpbmctZXZlbnRzIQ==\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: %s\r\n\r\n", path, addr, protocol); err != nil {
		return err
	}
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("the answer is %s", resp.Status)
	}
	return nil
}

func (w *webSocket) close() error { return w.conn.Close() }

// write sends one binary message.
func (w *webSocket) write(message []byte) error { return w.frame(opBinary, message) }

func (w *webSocket) frame(opcode byte, payload []byte) error {
	b := []byte{0x80 | opcode}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = append(append(b, 0, 0, 0, 0), payload...)
	w.writing.Lock()
	defer w.writing.Unlock()
	_, err := w.conn.Write(b)
	return err
}

// run passes each message to take, which must not keep it, until the connection
// ends.
func (w *webSocket) run(take func(message []byte) error) error {
	var head [8]byte
	for {
		if _, err := io.ReadFull(w.in, head[:2]); err != nil {
			return err
		}
		last, opcode, size := head[0]&0x80 != 0, head[0]&0xf, uint64(head[1]&0x7f)
		switch size {
		case 126:
			if _, err := io.ReadFull(w.in, head[:2]); err != nil {
				return err
			}
			size = uint64(binary.BigEndian.Uint16(head[:]))
		case 127:
			if _, err := io.ReadFull(w.in, head[:8]); err != nil {
				return err
			}
			size = binary.BigEndian.Uint64(head[:])
		}
		if opcode != opContinuation {
			w.message = w.message[:0]
		}
		begin := len(w.message)
		w.message = append(w.message, make([]byte, size)...)
		if _, err := io.ReadFull(w.in, w.message[begin:]); err != nil {
			return err
		}
		var err error
		switch {
		case opcode == opClose:
			return fmt.Errorf("the server closes the connection: %q", w.message)
		case opcode == opPing:
			err = w.frame(opPong, w.message)
		case opcode != opPong && last:
			err = take(w.message)
		}
		if err != nil {
			return err
		}
	}
}
