package ingest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/protoadapt"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/rpcstatus"
)

// errorDomain is the domain of google.rpc.ErrorInfo in this package's statuses.
const errorDomain = "ingest.starling.v1"

// Reasons of google.rpc.ErrorInfo; docs/driver-protocol.md lists what clients are
// to do about each.
const (
	reasonInvalidReport  = "INVALID_REPORT"
	reasonLogFull        = "LOG_FULL"
	reasonLogSlow        = "LOG_SLOW"
	reasonOutcomeUnknown = "OUTCOME_UNKNOWN"
	reasonClockInDoubt   = "CLOCK_IN_DOUBT"
	reasonShuttingDown   = "SHUTTING_DOWN"
	reasonTooManyStreams = "TOO_MANY_STREAMS"
	reasonStreamIdle     = "STREAM_IDLE"
	reasonAcksUnread     = "ACKNOWLEDGEMENTS_UNREAD"
	reasonRateExceeded   = "RATE_EXCEEDED"
)

// metadataReportNumber is the key of google.rpc.ErrorInfo.metadata that holds
// the report's place on the stream, from 1.
const metadataReportNumber = "report_number"

// statusError builds a status of this package's domain.
func statusError(code codes.Code, reason, message string, details ...protoadapt.MessageV1) error {
	return rpcstatus.Error(code, rpcstatus.Reason{Domain: errorDomain, Name: reason}, message, details...)
}

// invalidReport is the end of a stream whose report number can't be taken.
func invalidReport(number int64, violations []*errdetails.BadRequest_FieldViolation) error {
	reason := rpcstatus.Reason{
		Domain: errorDomain, Name: reasonInvalidReport,
		Metadata: map[string]string{metadataReportNumber: strconv.FormatInt(number, 10)},
	}
	return rpcstatus.Invalid(reason, fmt.Sprintf("report %d: ", number), violations).Err()
}

// retryLater is a status that asks the client to come back.
func (s *Server) retryLater(code codes.Code, reason, message string) error {
	return s.retryAfter(s.cfg.Limits.RetryDelay, code, reason, message)
}

// retryAfter is retryLater with a least delay of its own.
func (s *Server) retryAfter(least time.Duration, code codes.Code, reason, message string) error {
	delay := least + time.Duration(rand.Int64N(int64(least)+1))
	return statusError(code, reason, message, rpcstatus.RetryAfter(delay))
}

// appendFailed turns the log's answer to report number into the status that
// ends its stream or call.
func (s *Server) appendFailed(number int64, err error) error {
	code, reason, message := codes.Unavailable, reasonOutcomeUnknown, "the log did not confirm a report"
	switch {
	case errors.Is(err, eventlog.ErrTooLarge):
		s.metrics.reportsRejected[rejectedTooLarge].Inc()
		return invalidReport(number, rpcstatus.Violation("report", "its record is larger than the log takes"))
	case errors.Is(err, eventlog.ErrFull):
		code, reason, message = codes.ResourceExhausted, reasonLogFull, "the log is full"
	case errors.Is(err, errAppendWait):
		code, reason, message = codes.ResourceExhausted, reasonLogSlow, "the log takes reports more slowly than they come"
	case errors.Is(err, eventlog.ErrClosed):
		reason, message = reasonShuttingDown, "the log is closed"
	}
	// Of an unknown outcome nothing is sent to the client: the report may be
	// in the log or not.
	s.metrics.appendFailures[reason].Inc()
	s.logFailure(reason, err)
	return s.retryLater(code, reason, message)
}

// logFailure logs a failed append, and no other within a second: when the log
// fails, it fails for every stream.
func (s *Server) logFailure(reason string, err error) {
	if _, ok := s.failure.Pass(); ok {
		s.logger.Warn("the log did not take a report; further ones are only counted for a second", "reason", reason, "error", err)
	}
}

// errPanicked is the error when the log panicked instead of taking a record.
var errPanicked = errors.New("the log panicked")

// errAppendWait is the cause with which a wait for capacity is cancelled.
var errAppendWait = errors.New("no capacity within append_wait")
