package auth

import (
	"net/http"
	"net/url"
	"strings"
)

// HTTP is the guard of one HTTP server.
type HTTP struct {
	guard *Guard
	name  string
	// Need returns the scopes of which a path needs one; public paths need none.
	Need func(path string) (scopes Scopes, public bool)
	// Certificate has a client certificate that the listener has verified be
	// proof enough.
	Certificate bool
	// Refuse answers a refused request.
	Refuse func(w http.ResponseWriter, r *http.Request, why *Refusal)
}

// HTTP returns the guard of an HTTP server with a name. Its fields may be set
// before it is used.
func (g *Guard) HTTP(name string) *HTTP {
	return &HTTP{guard: g, name: name, Need: func(string) (Scopes, bool) { return allScopes | Service, false }, Refuse: plainRefusal}
}

// plainRefusal answers in words.
func plainRefusal(w http.ResponseWriter, _ *http.Request, why *Refusal) {
	code := http.StatusForbidden
	switch {
	case why.Reason == KeysUnavailable:
		code = http.StatusServiceUnavailable
	case why.Reason == InURL:
		code = http.StatusBadRequest
	case why.Code().String() == "Unauthenticated":
		code = http.StatusUnauthorized
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	http.Error(w, string(why.Reason)+": "+why.Message, code)
}

// Wrap lets requests through to next whose caller may have them.
func (h *HTTP) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, why := h.admit(r)
		if why != nil {
			h.guard.refusals.WithLabelValues(h.name, string(why.Reason)).Inc()
			h.Refuse(w, r, why)
			return
		}
		next.ServeHTTP(w, r.WithContext(WithCaller(r.Context(), c)))
	})
}

func (h *HTTP) admit(r *http.Request) (*Caller, *Refusal) {
	if tokenInURL(r) {
		return nil, refuse(InURL, "a token must not stand in the URL, which is logged and remembered on the way: send it as the header authorization: Bearer TOKEN (in a browser, with fetch)")
	}
	scopes, public := h.Need(r.URL.Path)
	if public {
		return &Caller{}, nil
	}
	if h.Certificate && r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return &Caller{Issuer: "tls", Subject: r.TLS.VerifiedChains[0][0].Subject.String(), Scopes: scopes}, nil
	}
	c, why := h.guard.caller(r.Header.Values("Authorization"))
	if why != nil {
		return nil, why
	}
	need := rule{scopes: scopes}
	if why := need.permit(c); why != nil {
		return nil, why
	}
	return c, nil
}

// tokenParameters are names under which tokens are put into URLs.
var tokenParameters = map[string]bool{
	"access_token": true, "auth_token": true, "id_token": true, "token": true, "jwt": true, "bearer": true, "authorization": true,
}

// tokenInURL reports whether a request has a token in its URL, by the name of a
// parameter or by its value. What net/url would not take as parameters is looked at
// too, because the URL is logged as it is.
func tokenInURL(r *http.Request) bool {
	for pair := range strings.FieldsFuncSeq(r.URL.RawQuery, func(c rune) bool { return c == '&' || c == ';' }) {
		name, value, _ := strings.Cut(pair, "=")
		if tokenParameters[strings.ToLower(unescaped(name))] || isToken(unescaped(value)) {
			return true
		}
	}
	return false
}

// unescaped is a part of a query as it is meant, or as it is written.
func unescaped(s string) string {
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	return s
}

// isToken reports whether a text is a token, or a header with one.
func isToken(s string) bool {
	s = strings.TrimSpace(s)
	if scheme, _, ok := strings.Cut(s, " "); ok && strings.EqualFold(scheme, "bearer") {
		return true
	}
	return strings.HasPrefix(s, "eyJ") && strings.Count(s, ".") == 2
}
