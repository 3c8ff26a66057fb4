package gateway

import (
	"context"
	"net/http"
)

// headWriter ends a stream that was asked for by HEAD with its first message.
type headWriter struct {
	http.ResponseWriter
	end context.CancelFunc
}

// headOf turns a HEAD into the GET that it stands for. The server leaves out the
// body; a stream, which may have no end, ends with its first message.
func headOf(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request) {
	get := r.Clone(r.Context())
	if isStream(r.URL.Path) {
		ctx, cancel := context.WithCancel(r.Context())
		get = r.Clone(ctx)
		w = &headWriter{w, cancel}
	}
	get.Method = http.MethodGet
	return w, get
}

// Write implements http.ResponseWriter.
func (h *headWriter) Write(b []byte) (int, error) {
	h.end()
	return len(b), nil
}

// Unwrap is for http.ResponseController.
func (h *headWriter) Unwrap() http.ResponseWriter { return h.ResponseWriter }
