package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// sealBytes is how much of the code a token carries.
const sealBytes = 12

// sealer binds page and resume tokens to the caller that they were given to. It
// keeps nothing: every process with the same secret knows what another one gave.
type sealer struct{ secret []byte }

// newSealer takes a secret, or draws one.
func newSealer(secret []byte) *sealer {
	if secret == nil {
		secret = make([]byte, minSecretBytes)
		_, _ = rand.Read(secret) // never fails
	}
	return &sealer{secret}
}

func (s *sealer) code(c *Caller, token string) string {
	h := hmac.New(sha256.New, s.secret)
	_, _ = h.Write([]byte(c.Principal() + "\n" + token))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:sealBytes])
}

// seal binds a token to a caller.
func (s *sealer) seal(c *Caller, token string) string {
	if token == "" {
		return ""
	}
	return token + "." + s.code(c, token)
}

// open returns the token that was sealed for a caller.
func (s *sealer) open(c *Caller, sealed string) (string, bool) {
	if sealed == "" {
		return "", true
	}
	token, code, ok := strings.Cut(sealed, ".")
	return token, ok && hmac.Equal([]byte(code), []byte(s.code(c, token)))
}

// openRequest puts the token that a request carries in the place of the sealed
// one. The request is the caller's own copy.
func (s *sealer) openRequest(c *Caller, req any) *Refusal {
	field, token := "page_token", (*string)(nil)
	switch m := req.(type) {
	case *starlingv1.ListVehiclesRequest:
		token = &m.PageToken
	case *starlingv1.CountVehiclesRequest:
		token = &m.PageToken
	case *starlingv1.WatchVehicleRequest:
		field, token = "resume_token", &m.ResumeToken
	case *starlingv1.GetTrackRequest:
		field, token = "resume_token", &m.ResumeToken
	case *starlingv1.GetCellStatsRequest:
		field, token = "resume_token", &m.ResumeToken
	case *starlingv1.FindVisitsRequest:
		field, token = "resume_token", &m.ResumeToken
	case *starlingv1.WatchAreaRequest:
		field, token = "resume_token", &m.ResumeToken
	}
	if token == nil {
		return nil
	}
	opened, ok := s.open(c, *token)
	if !ok {
		return refuse(NotYourToken, field+": is not a token that this caller was given", "field", field, "rule", "was given to the same caller, by a server with the same page key")
	}
	*token = opened
	return nil
}

// sealAnswer returns a message with its token sealed. Messages may be shared
// among callers, so a changed one is a copy.
func (s *sealer) sealAnswer(c *Caller, m any) any {
	switch m := m.(type) {
	case *starlingv1.ListVehiclesResponse:
		if m.GetNextPageToken() != "" { // every page is made for its caller
			m.NextPageToken = s.seal(c, m.GetNextPageToken())
		}
	case *starlingv1.CountVehiclesResponse:
		if m.GetNextPageToken() != "" {
			m.NextPageToken = s.seal(c, m.GetNextPageToken())
		}
	case *starlingv1.GetTrackResponse: // every part is made for its caller
		m.ResumeToken = s.seal(c, m.GetResumeToken())
	case *starlingv1.GetCellStatsResponse:
		m.ResumeToken = s.seal(c, m.GetResumeToken())
	case *starlingv1.FindVisitsResponse:
		m.ResumeToken = s.seal(c, m.GetResumeToken())
	case *starlingv1.WatchVehicleResponse:
		out := shallow(m)
		out.ResumeToken = s.seal(c, m.GetResumeToken())
		return out
	case *starlingv1.WatchAreaResponse:
		out := shallow(m)
		out.ResumeToken = s.seal(c, m.GetResumeToken())
		return out
	}
	return m
}

// shallow copies a message but not what it points to.
func shallow[M proto.Message](m M) M {
	out := m.ProtoReflect().New()
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool { out.Set(f, v); return true })
	return out.Interface().(M)
}
