// Package mint makes tokens, keys and certificates for development, tests and
// first deployments. A deployment's own identity provider does the same for its
// vehicles and people; the claims are those of docs/identity.md.
//
// Imported by cmd/starling/cli and tests; no server imports it.
package mint

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/starling-fleet/starling/internal/auth"
)

// Token is what a token is to claim.
type Token struct {
	Issuer, Audience, Subject string
	// Scope has names of scopes with spaces between them.
	Scope string
	// Vehicle is a vehicle id or a pattern; empty for none.
	Vehicle string
	// From and Until bound when it is valid; a zero From is left out.
	From, Until time.Time
}

// Key signs tokens.
type Key struct {
	id     string
	method jwt.SigningMethod
	secret any
}

// NewKey returns what signs with an ed25519.PrivateKey, an *rsa.PrivateKey or, by
// HS256 for development, a []byte.
func NewKey(secret any) (*Key, error) {
	k := &Key{secret: secret}
	var public crypto.PublicKey
	switch s := secret.(type) {
	case ed25519.PrivateKey:
		k.method, public = jwt.SigningMethodEdDSA, s.Public()
	case *rsa.PrivateKey:
		k.method, public = jwt.SigningMethodRS256, s.Public()
	case []byte:
		k.method, k.id = jwt.SigningMethodHS256, auth.DevKeyID
		return k, nil
	default:
		return nil, fmt.Errorf("a %T can't sign tokens: must be Ed25519 or RSA", secret)
	}
	var err error
	k.id, err = auth.Thumbprint(public)
	return k, err
}

// ParseKey reads a private key from PEM (PKCS #8 or PKCS #1).
func ParseKey(data []byte) (*Key, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("it is no PEM")
	}
	if block.Type == "RSA PRIVATE KEY" {
		secret, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		return NewKey(secret)
	}
	if block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("it is a %s: must be a PRIVATE KEY", block.Type)
	}
	secret, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	return NewKey(secret)
}

// ID is the key's kid.
func (k *Key) ID() string { return k.id }

// Sign returns a token.
func (k *Key) Sign(t Token) (string, error) {
	claims := jwt.MapClaims{"iss": t.Issuer, "aud": t.Audience, "sub": t.Subject, "exp": jwt.NewNumericDate(t.Until), "scope": t.Scope}
	if t.Vehicle != "" {
		claims["vehicle"] = t.Vehicle
	}
	if !t.From.IsZero() {
		claims["nbf"] = jwt.NewNumericDate(t.From)
	}
	unsigned := jwt.NewWithClaims(k.method, claims)
	unsigned.Header["kid"] = k.id
	return unsigned.SignedString(k.secret)
}

// Public returns an Ed25519 or RSA private key's public part as PEM.
func Public(secret crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(secret.Public())
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// Private returns a private key as PEM.
func Private(secret crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
