package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/rpcstatus"
)

const (
	// bodyStepBytes is what a body takes of the budget at first.
	bodyStepBytes = 16 << 10
	// largeAnswerBytes is what a large answer takes of the budget: 3 MiB from
	// the service, its messages and its JSON text.
	largeAnswerBytes = 24 << 20
	// budgetGrace is how long a request is safe from giving way to another
	// client that holds as much.
	budgetGrace = time.Second
)

// errBusy is returned when a budget is used up, and that nobody gives way.
var errBusy = errors.New("the budget is used up")

// isLarge reports whether the answer of a path may be large.
func isLarge(path string) bool {
	return path == "/v1/vehicles" || path == "/v1/vehicles:searchArea" || path == "/v1/vehicles:count"
}

// readBody reads a body, which is charged to the budget as it comes.
func (g *Gateway) readBody(w http.ResponseWriter, r *http.Request, control *http.ResponseController) ([]byte, error) {
	lease := g.bodies.Take(r.RemoteAddr, bodyStepBytes, func() { _ = control.SetReadDeadline(time.Unix(1, 0)) })
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

// admitLarge charges a request whose answer may be large until it ends. It
// returns false, having answered, when it is refused.
func (g *Gateway) admitLarge(w http.ResponseWriter, r *http.Request) (_ *http.Request, done func(), ok bool) {
	if !isLarge(r.URL.Path) {
		return r, func() {}, true
	}
	ctx, cancel := context.WithCancel(r.Context())
	control := http.NewResponseController(w)
	lease := g.answers.Take(r.RemoteAddr, largeAnswerBytes, func() {
		cancel()
		_ = control.SetWriteDeadline(time.Unix(1, 0))
	})
	if lease == nil {
		cancel()
		writeStatus(w, http.StatusTooManyRequests, busy("large answers are being read"))
		return r, nil, false
	}
	return r.WithContext(ctx), func() { lease.Release(); cancel() }, true
}

// busy asks the client to come back.
func busy(what string) *status.Status {
	return newStatus(codes.ResourceExhausted, reasonTooMany, fmt.Sprintf("too many %s", what), rpcstatus.RetryAfter(time.Second))
}
