// Package rpcstatus builds the statuses that Starling's servers answer with: a
// code, a message for people, and google.rpc.ErrorInfo with a reason for
// programs, as AIP-193 has it. Every server uses it; it imports nothing of ours.
package rpcstatus

import (
	"fmt"
	"strings"
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

const (
	// maxViolations is how many broken rules a status names: gRPC sends a status
	// among its headers, of which clients and proxies take few kilobytes.
	maxViolations = 20
	// maxTextBytes is how much of a field's name, and of what is wrong with it, is
	// repeated.
	maxTextBytes = 500
)

// Invalid is the INVALID_ARGUMENT that names the violations, of which there is at
// least one; those beyond the first 20 are counted. The message is prefix and the
// first of them.
func Invalid(reason Reason, prefix string, violations []*errdetails.BadRequest_FieldViolation) *status.Status {
	more := len(violations) - maxViolations
	violations = violations[:min(len(violations), maxViolations)]
	for _, v := range violations {
		v.Field, v.Description = shortened(v.Field), shortened(v.Description)
	}
	message := prefix + violations[0].Field + ": " + violations[0].Description
	if more > 0 {
		message += fmt.Sprintf(" (the first of %d faults, of which %d are named)", more+maxViolations, maxViolations)
	}
	return New(codes.InvalidArgument, reason, message, &errdetails.BadRequest{FieldViolations: violations})
}

func shortened(s string) string {
	if len(s) > maxTextBytes {
		return strings.ToValidUTF8(s[:maxTextBytes], "") + "…"
	}
	return s
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
