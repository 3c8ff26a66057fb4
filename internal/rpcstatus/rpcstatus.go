// Package rpcstatus builds the statuses that Starling's servers answer with: a
// code, a message for people, and google.rpc.ErrorInfo with a reason for
// programs, as AIP-193 has it. Every server uses it; it imports nothing of ours.
package rpcstatus

import (
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Reason is the domain and name of google.rpc.ErrorInfo.
type Reason struct {
	// Domain is the service that the reason belongs to, such as
	// "ingest.starling.v1".
	Domain string
	// Name is the reason in upper case, such as "LOG_FULL".
	Name string
	// Metadata are facts for programs; may be nil.
	Metadata map[string]string
}

// New builds a status with details.
func New(code codes.Code, reason Reason, message string, details ...protoadapt.MessageV1) *status.Status {
	info := &errdetails.ErrorInfo{Reason: reason.Name, Domain: reason.Domain, Metadata: reason.Metadata}
	st, err := status.New(code, message).WithDetails(append([]protoadapt.MessageV1{info}, details...)...)
	if err != nil {
		return status.New(code, message) // details that do not marshal are not worth a failure
	}
	return st
}

// Error is New as an error.
func Error(code codes.Code, reason Reason, message string, details ...protoadapt.MessageV1) error {
	return New(code, reason, message, details...).Err()
}

// RetryAfter is the detail that asks a client to come back no sooner than delay.
func RetryAfter(delay time.Duration) *errdetails.RetryInfo {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(delay)}
}

// Violations gather the broken rules of a request.
type Violations []*errdetails.BadRequest_FieldViolation

// Add adds a broken rule of a field.
func (v *Violations) Add(field, rule string, args ...any) {
	*v = append(*v, &errdetails.BadRequest_FieldViolation{Field: field, Description: fmt.Sprintf(rule, args...)})
}

// Err is the INVALID_ARGUMENT that names all of them, or nil if there are none.
func (v Violations) Err(reason Reason) error {
	if len(v) == 0 {
		return nil
	}
	return Invalid(reason, "", v).Err()
}

// Violation is a single broken rule of a field.
func Violation(field, rule string) []*errdetails.BadRequest_FieldViolation {
	return []*errdetails.BadRequest_FieldViolation{{Field: field, Description: rule}}
}

// Invalid is the INVALID_ARGUMENT that names every violation, of which there is
// at least one. The message is prefix and the first of them.
func Invalid(reason Reason, prefix string, violations []*errdetails.BadRequest_FieldViolation) *status.Status {
	first := violations[0]
	return New(codes.InvalidArgument, reason, prefix+first.Field+": "+first.Description,
		&errdetails.BadRequest{FieldViolations: violations})
}

// ReasonOf returns the reason in a status, or "" if it has none.
func ReasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}
