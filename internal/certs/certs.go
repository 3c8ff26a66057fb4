// Package certs secures connections by files: certificates of servers and
// clients, and the authorities that they believe. The files are read again when
// they change, for every server and every client of the process, without a
// restart; connections that are open stay as they are.
//
// Imported by cmd/starling/app; imports nothing of ours.
package certs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/credentials"
)

// Servers are the names of those that may require client certificates.
var Servers = []string{"ingest", "matcher", "rides", "history", "json", "admin", "metrics"}

// Config names the files.
type Config struct {
	CertFile       string        `koanf:"cert_file" help:"Certificate of the servers, with those between it and its authority (PEM). Inside it is that of the clients too. Empty turns TLS off."`
	KeyFile        string        `koanf:"key_file" help:"Private key of cert_file (PEM)."`
	ClientCAFile   string        `koanf:"client_ca_file" help:"Authorities of client certificates (PEM)."`
	RequireClients []string      `koanf:"require_client_certificates" help:"Servers that turn away clients without a certificate by client_ca_file: ingest, matcher, rides, history, json, admin, metrics. Tokens are still asked for, but not by the metrics server."`
	CAFile         string        `koanf:"ca_file" help:"Authorities that a fan-out believes the certificates of matchers by (PEM); empty means the machine's."`
	ReloadInterval time.Duration `koanf:"reload_interval" help:"Time between two looks at the files. SIGHUP looks at once."`
	BehindProxy    bool          `koanf:"behind_proxy" help:"Serve without TLS on addresses other than loopback, because a proxy in front has it."`
}

// DefaultConfig has no TLS.
func DefaultConfig() Config { return Config{ReloadInterval: 10 * time.Second} }

// On reports whether there is TLS.
func (c *Config) On() bool { return c.CertFile != "" }

// Validate returns all faults, each naming its field and rule.
func (c *Config) Validate() error {
	var faults []error
	need := func(ok bool, rule string) {
		if !ok {
			faults = append(faults, errors.New(rule))
		}
	}
	need((c.CertFile == "") == (c.KeyFile == ""), "cert_file and key_file: must be set together")
	need(c.ClientCAFile == "" || c.On(), "client_ca_file is set: needs cert_file")
	need(len(c.RequireClients) == 0 || c.ClientCAFile != "", "require_client_certificates is set: needs client_ca_file")
	for _, name := range c.RequireClients {
		need(slices.Contains(Servers, name), fmt.Sprintf("require_client_certificates has %q: must be of ingest, matcher, rides, history, json, admin, metrics", name))
	}
	need(c.ReloadInterval >= time.Second && c.ReloadInterval <= 24*time.Hour, fmt.Sprintf("reload_interval is %s: must be between 1s and 24h", c.ReloadInterval))
	return errors.Join(faults...)
}

// Deps are what a store works with.
type Deps struct {
	Registerer prometheus.Registerer
	Logger     *slog.Logger
}

// Store has the certificates in force. It is safe for concurrent use.
type Store struct {
	cfg      Config
	logger   *slog.Logger
	current  atomic.Pointer[material]
	failures prometheus.Counter
}

// material is what the files held when they were last read whole.
type material struct {
	sum            [sha256.Size]byte
	expires        time.Time
	plain, mutual  *tls.Config // of gRPC servers
	web, mutualWeb *tls.Config // of HTTP servers
	client         *tls.Config
}

// New reads the files and registers the metrics.
func New(cfg Config, deps Deps) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, logger: deps.Logger, failures: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "starling_tls_reload_failures_total", Help: "Looks at the files of certificates that failed; the last ones stay in force.",
	})}
	m, err := s.read()
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	s.current.Store(m)
	expiry := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "starling_tls_certificate_expiry_timestamp_seconds", Help: "When the servers' certificate expires, in Unix seconds.",
	}, func() float64 { return float64(s.current.Load().expires.Unix()) })
	for _, c := range []prometheus.Collector{s.failures, expiry} {
		if err := deps.Registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register the metrics of certificates: %w", err)
		}
	}
	return s, nil
}

// Run looks at the files again and again until ctx is done.
func (s *Store) Run(ctx context.Context) error {
	ticker := time.NewTicker(s.cfg.ReloadInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if err := s.Reload(); err != nil {
				s.logger.Warn("certificates can't be read; the last ones stay in force", "error", err)
			}
		}
	}
}

// Reload looks at the files now. When they can't be used, the last ones stay in
// force.
func (s *Store) Reload() error {
	m, err := s.read()
	if err != nil {
		s.failures.Inc()
		return fmt.Errorf("tls: %w", err)
	}
	if m.sum != s.current.Load().sum {
		s.current.Store(m)
		s.logger.Info("certificates were read anew", "expires", m.expires)
	}
	return nil
}

func (s *Store) read() (*material, error) {
	files := [4][]byte{}
	for i, path := range []string{s.cfg.CertFile, s.cfg.KeyFile, s.cfg.ClientCAFile, s.cfg.CAFile} {
		if path == "" {
			continue
		}
		var err error
		if files[i], err = os.ReadFile(path); err != nil {
			return nil, err
		}
	}
	cert, err := tls.X509KeyPair(files[0], files[1])
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", s.cfg.CertFile, s.cfg.KeyFile, err)
	}
	m := &material{sum: sha256.Sum256(bytes.Join(files[:], []byte{0})), expires: cert.Leaf.NotAfter}
	clients, err := pool(s.cfg.ClientCAFile, files[2])
	if err != nil {
		return nil, err
	}
	roots, err := pool(s.cfg.CAFile, files[3])
	if err != nil {
		return nil, err
	}
	server := func(protocol string, mutual bool) *tls.Config {
		c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, NextProtos: []string{protocol}}
		if mutual {
			c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, clients
		}
		return c
	}
	m.plain, m.mutual = server("h2", false), server("h2", true)
	m.web, m.mutualWeb = server("http/1.1", false), server("http/1.1", true)
	m.client = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}}
	return m, nil
}

func pool(path string, pem []byte) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // none means the machine's
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate", path)
	}
	return p, nil
}

func (s *Store) mutual(server string) bool { return slices.Contains(s.cfg.RequireClients, server) }

// Mutual reports whether a server turns away clients without a certificate.
func (s *Store) Mutual(server string) bool { return s != nil && s.mutual(server) }

// Web is what an HTTP server is secured by; nil for no store, which is no TLS.
func (s *Store) Web(server string) *tls.Config {
	if s == nil {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if s.mutual(server) {
			return s.current.Load().mutualWeb, nil
		}
		return s.current.Load().web, nil
	}}
}

// Server is what a gRPC server is secured by; nil for no store, which is no TLS.
func (s *Store) Server(server string) credentials.TransportCredentials {
	if s == nil {
		return nil
	}
	return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if s.mutual(server) {
			return s.current.Load().mutual, nil
		}
		return s.current.Load().plain, nil
	}})
}

// Client is what connections to other servers of ours are secured by.
func (s *Store) Client() credentials.TransportCredentials {
	return &client{TransportCredentials: credentials.NewTLS(s.current.Load().client), store: s}
}

// client takes the certificates in force for each connection.
type client struct {
	credentials.TransportCredentials
	store *Store
}

// ClientHandshake implements credentials.TransportCredentials.
func (c *client) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(c.store.current.Load().client).ClientHandshake(ctx, authority, conn)
}

// Clone implements credentials.TransportCredentials.
func (c *client) Clone() credentials.TransportCredentials {
	return &client{TransportCredentials: c.TransportCredentials.Clone(), store: c.store}
}
