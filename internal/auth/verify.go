package auth

import (
	"crypto/sha256"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// maxTokenBytes bounds a token before anything of it is read.
	maxTokenBytes = 4096
	// maxSubjectBytes bounds the claim sub.
	maxSubjectBytes = 256
)

// verifier makes callers of tokens. It is safe for concurrent use.
type verifier struct {
	cfg    Config
	parser *jwt.Parser
	keys   *keyring
	now    func() time.Time
	cache  cache
}

func newVerifier(cfg Config, keys *keyring, now func() time.Time) *verifier {
	algorithms := []string{algEdDSA, algRS256}
	if cfg.DevSecretFile != "" {
		algorithms = append(algorithms, algHS256)
	}
	return &verifier{
		cfg: cfg, keys: keys, now: now, cache: cache{most: cfg.MaxTokens, known: map[[sha256.Size]byte]*Caller{}},
		parser: jwt.NewParser(
			jwt.WithValidMethods(algorithms), jwt.WithIssuer(cfg.Issuer), jwt.WithAudience(cfg.Audience),
			jwt.WithExpirationRequired(), jwt.WithLeeway(cfg.Leeway), jwt.WithTimeFunc(now), jwt.WithStrictDecoding(),
		),
	}
}

// caller returns whom a token names.
func (v *verifier) caller(token string) (*Caller, *Refusal) {
	if len(token) > maxTokenBytes {
		return nil, refuse(TooLarge, "the token has more than 4096 bytes")
	}
	if !v.keys.current(v.now()) {
		return nil, refuse(KeysUnavailable, "the keys of tokens could not be read for too long")
	}
	sum := sha256.Sum256([]byte(token))
	if c := v.cache.get(sum); c != nil {
		if r := c.ended(v.now()); r != nil {
			v.cache.drop(sum)
			return nil, r
		}
		return c, nil
	}
	c, r := v.verify(token)
	if r != nil {
		return nil, r
	}
	v.cache.put(sum, c)
	if c.key.isRemoved() { // since it was looked up: the cache was swept without it
		v.cache.drop(sum)
		return nil, c.ended(v.now())
	}
	return c, nil
}

// errUnknownKey and errWrongAlgorithm are what keyOf refuses with.
var (
	errUnknownKey     = errors.New("no such key")
	errWrongAlgorithm = errors.New("the key is of another algorithm")
	errCritical       = errors.New("crit is not supported")
)

// verify checks a token that is not known. A panic of what reads it is a fault of
// the token: it must not end the process.
func (v *verifier) verify(token string) (c *Caller, refusal *Refusal) {
	defer func() {
		if p := recover(); p != nil {
			c, refusal = nil, refuse(Malformed, "the token is no JWT that the server can read")
		}
	}()
	var signer *key
	var stated claims
	_, err := v.parser.ParseWithClaims(token, &stated, func(t *jwt.Token) (any, error) {
		if _, has := t.Header["crit"]; has {
			return nil, errCritical
		}
		id, isText := t.Header["kid"].(string)
		if _, has := t.Header["kid"]; has && !isText {
			return nil, errUnknownKey
		}
		k := v.keys.find(id)
		if k == nil {
			return nil, errUnknownKey
		}
		if k.alg != t.Method.Alg() {
			return nil, errWrongAlgorithm
		}
		signer = k
		return k.public, nil
	})
	if err != nil {
		return nil, v.refusal(err)
	}
	c = &Caller{Issuer: stated.Issuer, Subject: stated.Subject, Vehicle: stated.Vehicle, Expires: stated.ExpiresAt.Add(v.cfg.Leeway), key: signer}
	if !ValidSubject(c.Subject) {
		return nil, refuse(WrongClaim, "the claim sub "+SubjectRule, "claim", "sub")
	}
	if c.Vehicle != "" && !ValidVehicle(c.Vehicle) {
		return nil, refuse(WrongClaim, "the claim vehicle "+VehicleRule, "claim", "vehicle")
	}
	c.principal = c.Principal() // once, not with each call
	for _, name := range stated.Scope {
		scope, _ := ParseScope(name) // others are for other servers
		c.Scopes |= scope
	}
	return c, nil
}

// refusal names the claim and the rule that the library found broken.
func (v *verifier) refusal(err error) *Refusal {
	var wrong *claimError
	switch {
	case errors.As(err, &wrong):
		return refuse(WrongClaim, "the token's claim "+wrong.Error(), "claim", wrong.claim, "rule", wrong.rule)
	case errors.Is(err, errUnknownKey):
		v.keys.nudge()
		return refuse(UnknownKey, "the server has no key with the token's kid", "claim", "kid")
	case errors.Is(err, errWrongAlgorithm):
		return refuse(WrongAlgorithm, "the token's alg is not that of the key with its kid", "claim", "alg")
	case errors.Is(err, errCritical):
		return refuse(Malformed, "the token's header has crit, of which nothing is supported", "claim", "crit")
	case errors.Is(err, jwt.ErrTokenExpired):
		return refuse(Expired, "the token has expired", "claim", "exp")
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return refuse(NotYetValid, "the token is not valid yet", "claim", "nbf")
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return refuse(WrongIssuer, "the token's iss is not the issuer that the server believes", "claim", "iss")
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return refuse(WrongAudience, "the token's aud is not this deployment's", "claim", "aud")
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return refuse(WrongClaim, "the token lacks a claim: exp, iss, aud and sub are required", "claim", "exp iss aud sub")
	case strings.Contains(err.Error(), "signing method"):
		// The library has no error of its own for these.
		return refuse(WrongAlgorithm, "the token's alg is not among those that the server takes: EdDSA, RS256", "claim", "alg")
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return refuse(WrongSignature, "the token's signature is wrong")
	default:
		return refuse(Malformed, "the token is no JWT that the server can read")
	}
}

// cache remembers verified tokens by their digests.
type cache struct {
	most  int
	mu    sync.RWMutex
	known map[[sha256.Size]byte]*Caller
}

func (c *cache) get(sum [sha256.Size]byte) *Caller {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.known[sum]
}

// put remembers a caller, in the place of any other if there is none left.
func (c *cache) put(sum [sha256.Size]byte, caller *Caller) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= c.most {
		for other := range c.known {
			delete(c.known, other)
			break
		}
	}
	c.known[sum] = caller
}

func (c *cache) drop(sum [sha256.Size]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, sum)
}

// sweep forgets tokens that have expired or whose key was removed.
func (c *cache) sweep(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for sum, caller := range c.known {
		if caller.ended(now) != nil {
			delete(c.known, sum)
		}
	}
}

func (c *cache) size() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.known)
}
