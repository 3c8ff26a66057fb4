package client

import (
	"context"
	"errors"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// streamEnd is what a stream's end means for what is unacknowledged.
type streamEnd int

const (
	endRetry  streamEnd = iota // retry later
	endReject                  // one report is at fault, the others are not
	endStop                    // a retry can't help
)

// judge classifies the end of a stream. A stream that has made progress was
// authenticated, so an expired token is no reason to stop.
func judge(err error, progress bool) streamEnd {
	if err == nil || errors.Is(err, ErrProtocol) || errors.Is(err, ErrAckTimeout) {
		return endRetry
	}
	switch status.Code(err) {
	case codes.InvalidArgument, codes.OutOfRange:
		return endReject
	case codes.Unauthenticated:
		if progress || outlived(err) {
			return endRetry
		}
		return endStop
	case codes.PermissionDenied, codes.Unimplemented, codes.FailedPrecondition, codes.NotFound:
		return endStop
	default:
		return endRetry
	}
}

// outlived reports whether a token was refused that has been good once: its source
// has another one, or will have.
func outlived(err error) bool {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && (info.GetReason() == "TOKEN_EXPIRED" || info.GetReason() == "TOKEN_KEY_REMOVED") {
			return true
		}
	}
	return false
}

// MetadataReportNumber is the key in google.rpc.ErrorInfo.metadata under which a
// stream's status names the report at fault, counted from 1 on the stream.
const MetadataReportNumber = "report_number"

// offender returns the number on the stream, counted from 1, of the report that
// a status names as at fault.
func offender(err error) (number int64, ok bool) {
	for _, detail := range status.Convert(err).Details() {
		info, isInfo := detail.(*errdetails.ErrorInfo)
		if !isInfo {
			continue
		}
		n, perr := strconv.ParseInt(info.GetMetadata()[MetadataReportNumber], 10, 64)
		if perr == nil && n > 0 {
			return n, true
		}
	}
	return 0, false
}

// retryDelay returns the delay of the status's RetryInfo, or zero.
func retryDelay(err error) time.Duration {
	if err == nil {
		return 0
	}
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return max(0, info.GetRetryDelay().AsDuration())
		}
	}
	return 0
}

// streamError returns the reason for which the client ended the stream, if it
// did, instead of the status that this caused.
func streamError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, ErrProtocol) || errors.Is(cause, ErrAckTimeout) {
		return cause
	}
	return err
}
