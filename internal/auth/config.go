package auth

import (
	"net"
	"net/url"
	"time"

	"github.com/starling-fleet/starling/internal/valid"
)

// Config names the issuers and keys that the servers trust.
type Config struct {
	KeysFile         string        `koanf:"keys_file" help:"Public keys that tokens are signed with: PEM (Ed25519 or RSA), or a JWKS. Read again when it changes."`
	JWKSURL          string        `koanf:"jwks_url" help:"Address of a JWKS with such keys, https or on loopback. Read again every refresh_interval."`
	Issuer           string        `koanf:"issuer" help:"What the claim iss of a token must be. Required with keys."`
	Audience         string        `koanf:"audience" help:"What the claim aud of a token must contain."`
	Leeway           time.Duration `koanf:"leeway" help:"How far clocks may differ when exp and nbf are checked."`
	RefreshInterval  time.Duration `koanf:"refresh_interval" help:"Time between two reads of the keys. A key that was removed is refused, and streams that it opened are ended, after one of them."`
	KeepKeys         time.Duration `koanf:"keep_keys" help:"How long the last keys count when they can't be read again; then every token is refused."`
	MaxTokens        int           `koanf:"max_tokens" help:"Verified tokens that are remembered, so that a call with one costs no signature check."`
	DevSecretFile    string        `koanf:"dev_secret_file" help:"Secret of development tokens (HS256), at least 32 bytes; only with dev."`
	ServiceTokenFile string        `koanf:"service_token_file" help:"A fan-out's own token, with the scope service, for the matchers it asks. Read again when it changes."`
	PageKeyFile      string        `koanf:"page_key_file" help:"Secret, at least 32 bytes, with which page and resume tokens are bound to their caller; the same for all replicas. Without it each process draws its own, and such a token is good for that process only."`
}

// DefaultConfig has no keys, so that it lets nobody in.
func DefaultConfig() Config {
	return Config{
		Audience: "starling", Leeway: 5 * time.Second,
		RefreshInterval: time.Minute, KeepKeys: time.Hour, MaxTokens: 10_000,
	}
}

// HasKeys reports whether there is anything to verify tokens with.
func (c *Config) HasKeys() bool {
	return c.KeysFile != "" || c.JWKSURL != "" || c.DevSecretFile != ""
}

// Validate returns all faults, each naming its field and rule. Dev is whether the
// process is in development mode.
func (c *Config) Validate(dev bool) error {
	var faults valid.Faults
	if c.JWKSURL != "" {
		faults.Need(fetchable(c.JWKSURL), "jwks_url", c.JWKSURL, "an https address, or http on loopback")
	}
	faults.Need(c.DevSecretFile == "" || dev, "dev_secret_file", c.DevSecretFile, "left out without dev: HS256 is for development only")
	if c.HasKeys() {
		faults.Need(c.Issuer != "", "issuer", c.Issuer, "set, because any issuer's tokens would do otherwise")
		faults.Need(c.Audience != "", "audience", c.Audience, "set")
	}
	valid.Between(&faults, "leeway", c.Leeway, 0, time.Minute)
	valid.Between(&faults, "refresh_interval", c.RefreshInterval, time.Second, 24*time.Hour)
	faults.Need(c.KeepKeys >= c.RefreshInterval, "keep_keys", c.KeepKeys, "at least refresh_interval")
	valid.Between(&faults, "max_tokens", c.MaxTokens, 1, 1_000_000)
	return faults.Err()
}

// fetchable reports whether keys may be read from an address: whoever can change
// what is read on the way can sign tokens.
func fetchable(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && Loopback(u.Hostname())
}

// Loopback reports whether a host is this machine only.
func Loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
