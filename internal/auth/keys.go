package auth

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/MicahParks/jwkset"
)

// Algorithms of signatures. The server pins them: a key is good for one.
const (
	algEdDSA = "EdDSA"
	algRS256 = "RS256"
	algHS256 = "HS256"
)

const (
	// minRSABits is the least size of an RSA key, as RFC 7518 has it.
	minRSABits = 2048
	// maxKeys bounds a set.
	maxKeys = 100
	// minSecretBytes is the least size of a secret.
	minSecretBytes = 32
)

// key verifies signatures of one algorithm.
type key struct {
	id, alg string
	public  any // ed25519.PublicKey, *rsa.PublicKey or []byte
	// print distinguishes keys by what they are, not by their names.
	print [sha256.Size]byte
	// removed is done when the key is not among the server's any more.
	removed context.Context
	remove  context.CancelFunc
}

func (k *key) isRemoved() bool { return k.removed.Err() != nil }

// newKey pins the algorithm of a public key. An empty id becomes the key's
// thumbprint.
func newKey(id string, public any) (*key, error) {
	k := &key{id: id, public: public}
	k.removed, k.remove = context.WithCancel(context.Background())
	switch p := public.(type) {
	case ed25519.PublicKey:
		k.alg = algEdDSA
	case *rsa.PublicKey:
		k.alg = algRS256
		if p.N.BitLen() < minRSABits {
			return nil, fmt.Errorf("key %q has %d bits: RSA keys must have at least %d", id, p.N.BitLen(), minRSABits)
		}
	case []byte:
		k.alg = algHS256
		k.print = sha256.Sum256(append([]byte(algHS256+id), p...))
		return k, nil
	case ed25519.PrivateKey, *rsa.PrivateKey:
		return nil, fmt.Errorf("key %q is a private key: give the server the public one only", id)
	default:
		return nil, fmt.Errorf("key %q is a %T: must be Ed25519 or RSA", id, public)
	}
	if k.id == "" {
		name, err := Thumbprint(public)
		if err != nil {
			return nil, err
		}
		k.id = name
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", k.id, err)
	}
	k.print = sha256.Sum256(append([]byte(k.id+"\n"), der...))
	return k, nil
}

// Thumbprint is the id (kid) of a public key that has no other, by RFC 7638.
func Thumbprint(public any) (string, error) {
	encode := base64.RawURLEncoding.EncodeToString
	var members string
	switch p := public.(type) {
	case ed25519.PublicKey:
		members = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":%q}`, encode(p))
	case *rsa.PublicKey:
		exponent := []byte{byte(p.E >> 24), byte(p.E >> 16), byte(p.E >> 8), byte(p.E)}
		members = fmt.Sprintf(`{"e":%q,"kty":"RSA","n":%q}`, encode(bytes.TrimLeft(exponent, "\x00")), encode(p.N.Bytes()))
	default:
		return "", fmt.Errorf("a %T has no thumbprint", public)
	}
	sum := sha256.Sum256([]byte(members))
	return encode(sum[:]), nil
}

// parseKeys reads public keys from PEM or a JWKS. A key of a JWKS that is for
// something else (encryption, another algorithm) is passed over. One that can't be
// used is returned as a fault: others depend on the rest of the set. A file of PEM is
// the operator's own, so that any fault refuses it.
func parseKeys(data []byte) (keys []*key, faults []error, err error) {
	if trimmed := bytes.TrimSpace(data); len(trimmed) > 0 && trimmed[0] == '{' {
		keys, faults, err = parseJWKS(trimmed)
	} else {
		keys, err = parsePEM(data)
	}
	if err != nil {
		return nil, nil, err
	}
	if len(keys) == 0 {
		return nil, nil, errors.Join(append([]error{errors.New("there is no key for EdDSA (Ed25519) or RS256 (RSA)")}, faults...)...)
	}
	if len(keys) > maxKeys {
		return nil, nil, fmt.Errorf("there are %d keys, at most %d are taken", len(keys), maxKeys)
	}
	return keys, faults, nil
}

// errTwoKeys reports that an id names two keys.
func errTwoKeys(id string) error { return fmt.Errorf("two keys have the id %s", strconv.Quote(id)) }

func parsePEM(data []byte) (keys []*key, err error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return keys, nil
		}
		var public any
		switch block.Type {
		case "PUBLIC KEY":
			public, err = x509.ParsePKIXPublicKey(block.Bytes)
		case "RSA PUBLIC KEY":
			public, err = x509.ParsePKCS1PublicKey(block.Bytes)
		case "PRIVATE KEY", "RSA PRIVATE KEY":
			return nil, errors.New("it holds a private key: give the server the public one only")
		default:
			return nil, fmt.Errorf("a block is a %q: must be PUBLIC KEY", block.Type)
		}
		if err != nil {
			return nil, fmt.Errorf("a %s can't be read: %w", block.Type, err)
		}
		k, err := newKey("", public)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(keys, func(other *key) bool { return other.id == k.id }) {
			return nil, errTwoKeys(k.id)
		}
		keys = append(keys, k)
	}
}

func parseJWKS(data []byte) (keys []*key, faults []error, err error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, nil, fmt.Errorf("it is no JWKS: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, nil, fmt.Errorf("there are %d keys, at most %d are taken", len(set.Keys), maxKeys)
	}
	for i, entry := range set.Keys {
		k, err := parseJWK(entry)
		if err != nil {
			faults = append(faults, fmt.Errorf("key %d of the JWKS: %w", i, err))
		} else if k != nil {
			keys = append(keys, k)
		}
	}
	return keys, faults, nil
}

// parseJWK reads a key of a JWKS; nil if it is for something else. The library may
// panic over what it does not expect, which must not end the process.
func parseJWK(data []byte) (k *key, err error) {
	defer func() {
		if p := recover(); p != nil {
			k, err = nil, fmt.Errorf("it can't be read: %v", p)
		}
	}()
	var entry jwkset.JWKMarshal
	if err := json.Unmarshal(data, &entry); err != nil {
		return nil, fmt.Errorf("it is no JWK: %w", err)
	}
	if entry.D != "" {
		return nil, fmt.Errorf("%q is a private key: give the server the public one only", entry.KID)
	}
	alg := string(entry.ALG)
	rightUse := entry.USE == "" || entry.USE == jwkset.UseSig
	rightUse = rightUse && (len(entry.KEYOPS) == 0 || slices.Contains(entry.KEYOPS, jwkset.KeyOpsVerify))
	rightAlg := alg == "" || alg == algEdDSA && entry.KTY == jwkset.KtyOKP || alg == algRS256 && entry.KTY == jwkset.KtyRSA
	if !rightUse || !rightAlg || entry.KTY != jwkset.KtyOKP && entry.KTY != jwkset.KtyRSA || entry.CRV != "" && entry.CRV != jwkset.CrvEd25519 {
		return nil, nil
	}
	jwk, err := jwkset.NewJWKFromMarshal(entry, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return nil, fmt.Errorf("%q: %w", entry.KID, err)
	}
	return newKey(entry.KID, jwk.Key())
}
