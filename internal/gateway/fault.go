package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/protoadapt"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/rpcstatus"
)

// errorDomain is the domain of google.rpc.ErrorInfo in what the gateway refuses
// itself; the services have their own.
const errorDomain = "json.starling.v1"

// Reasons of google.rpc.ErrorInfo; docs/json.md lists them.
const (
	reasonInvalidRequest   = "INVALID_REQUEST"
	reasonTooLarge         = "BODY_TOO_LARGE"
	reasonNotJSON          = "CONTENT_TYPE_NOT_JSON"
	reasonTooSlow          = "REQUEST_TOO_SLOW"
	reasonTooMany          = "TOO_MANY_REQUESTS"
	reasonNoSuchPath       = "NO_SUCH_PATH"
	reasonMethodNotAllowed = "METHOD_NOT_ALLOWED"
	reasonUnknownHost      = "UNKNOWN_HOST"
	reasonCallTimeout      = "CALL_TIMEOUT"
	reasonCanceled         = "CANCELED"
	reasonUnavailable      = "UNAVAILABLE"
	reasonNotServed        = "NOT_SERVED"
	reasonOther            = "UNKNOWN"
)

// maxRuleBytes bounds what an error repeats of a request.
const maxRuleBytes = 300

// fault is a field of a request that broke a rule before it reached a service.
type fault struct{ field, rule string }

// Error implements error.
func (f *fault) Error() string { return f.field + ": " + f.rule }

// status is what the client receives.
func (f *fault) status() *status.Status {
	field, rule := short(f.field), short(f.rule)
	return rpcstatus.Invalid(rpcstatus.Reason{Domain: errorDomain, Name: reasonInvalidRequest}, "", rpcstatus.Violation(field, rule))
}

// body is the body of a request. It keeps the fault that the decoder finds in
// it, because the generated handlers keep no more of an error than its text.
type body struct {
	*bytes.Reader
	fault *fault
}

// Close implements io.Closer.
func (*body) Close() error { return nil }

// faultOf returns the fault that was found in a request's body, or nil.
func faultOf(r *http.Request) *fault {
	if b, ok := r.Body.(*body); ok {
		return b.fault
	}
	return nil
}

func short(s string) string {
	if len(s) > maxRuleBytes {
		s = s[:maxRuleBytes] + "…"
	}
	return strings.ToValidUTF8(s, "�")
}

func newStatus(code codes.Code, reason, message string, details ...protoadapt.MessageV1) *status.Status {
	return rpcstatus.New(code, rpcstatus.Reason{Domain: errorDomain, Name: reason}, message, details...)
}

// writeStatus answers with an error.
func writeStatus(w http.ResponseWriter, httpStatus int, st *status.Status) {
	body, err := protojson.Marshal(st.Proto())
	if err != nil { // a detail of a type that this process does not know
		body, _ = protojson.Marshal(status.New(st.Code(), st.Message()).Proto())
	}
	h := w.Header()
	h.Set("Content-Type", typeJSON)
	h.Set("X-Content-Type-Options", "nosniff")
	if st.Code() == codes.Unauthenticated {
		h.Set("WWW-Authenticate", "Bearer")
	}
	if delay, ok := retryDelay(st); ok {
		h.Set("Retry-After", strconv.FormatInt(int64(math.Ceil(delay.Seconds())), 10))
	}
	w.WriteHeader(httpStatus)
	_, _ = w.Write(append(body, '\n')) // a client that is gone needs no answer
}

func retryDelay(st *status.Status) (time.Duration, bool) {
	for _, detail := range st.Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok {
			return retry.GetRetryDelay().AsDuration(), true
		}
	}
	return 0, false
}

// refuse answers who is not let in.
func refuse(w http.ResponseWriter, _ *http.Request, why *auth.Refusal) {
	st := status.Convert(why.Err())
	writeStatus(w, runtime.HTTPStatusFromCode(st.Code()), st)
}

// handleError answers a call that failed.
func handleError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	var withStatus *runtime.HTTPStatusError
	if errors.As(err, &withStatus) {
		err = withStatus.Err
	}
	st := withReason(status.Convert(err))
	if f := faultOf(r); f != nil {
		st = f.status()
	}
	httpStatus := runtime.HTTPStatusFromCode(st.Code())
	if withStatus != nil {
		httpStatus = withStatus.HTTPStatus
	}
	writeStatus(w, httpStatus, st)
}

// streamError is the last line of a watch that failed.
func streamError(_ context.Context, err error) *status.Status { return withReason(status.Convert(err)) }

// withReason gives an error that gRPC itself has made the typed detail that every
// other error has.
func withReason(st *status.Status) *status.Status {
	if len(st.Proto().GetDetails()) > 0 {
		return st
	}
	reason := reasonOther
	switch st.Code() {
	case codes.DeadlineExceeded:
		reason = reasonCallTimeout
	case codes.Canceled:
		reason = reasonCanceled
	case codes.Unavailable:
		reason = reasonUnavailable
	case codes.Unimplemented:
		reason = reasonNotServed
	default:
	}
	return newStatus(st.Code(), reason, st.Message())
}

// handleRouting answers a request that no method has, although route has let it
// pass: its path is not well formed.
func handleRouting(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, httpStatus int) {
	if httpStatus == http.StatusNotFound {
		writeStatus(w, httpStatus, noSuchPath(r.URL.Path))
		return
	}
	writeStatus(w, http.StatusBadRequest, newStatus(codes.InvalidArgument, reasonInvalidRequest, "the path is not well formed"))
}

func noSuchPath(path string) *status.Status {
	return newStatus(codes.NotFound, reasonNoSuchPath, fmt.Sprintf("there is no %s here; %s lists the paths", strconv.Quote(short(path)), documentPath))
}

func methodNotAllowed(r *http.Request) *status.Status {
	return newStatus(codes.Unimplemented, reasonMethodNotAllowed,
		fmt.Sprintf("%s is not among the methods of %s", short(r.Method), strconv.Quote(short(r.URL.Path))))
}

// tooLarge answers a request that is larger than its service takes.
func tooLarge(message string) *status.Status {
	return newStatus(codes.InvalidArgument, reasonTooLarge, message)
}

// grpcTimeout is the form of the header Grpc-Timeout.
var grpcTimeout = regexp.MustCompile(`^0*[1-9][0-9]{0,7}[HMSmun]$`)

// wrongTimeout returns what is wrong with the time that a client gives its call.
func wrongTimeout(h http.Header) *fault {
	if values := h.Values("Grpc-Timeout"); len(values) > 0 && !grpcTimeout.MatchString(values[0]) {
		return &fault{"Grpc-Timeout", fmt.Sprintf("is %q, must be a whole number above 0 of at most 8 digits and a unit: H, M, S, m (milliseconds), u or n", short(values[0]))}
	}
	return nil
}

// tooMany asks the client to come back.
func tooMany(open int) *status.Status {
	return newStatus(codes.ResourceExhausted, reasonTooMany, fmt.Sprintf("%d requests are open already", open),
		rpcstatus.RetryAfter(time.Second))
}
