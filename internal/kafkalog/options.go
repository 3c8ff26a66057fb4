package kafkalog

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/starling-fleet/starling/internal/retry"
)

const (
	// metadataMinAge bounds how often the brokers are asked who leads what. A
	// moved leader is noticed no sooner, so the client's default of 5 s would
	// by itself use up the time that a rollout may take.
	metadataMinAge = 250 * time.Millisecond
	metadataMaxAge = time.Minute
	maxBackoff     = time.Second
	// maxClientBackoff bounds the pauses between a client's requests. A new
	// leader is used no sooner than the next try, and a fix passes three of them
	// on its way.
	maxClientBackoff = 250 * time.Millisecond
	// requestRetries is how often a request is tried again, about 15 s: longer
	// than a coordinator is away with its broker. Records are not counted.
	requestRetries = 64
)

// clientOptions are what every client of the cluster shares.
func clientOptions(cfg *Config, logger *slog.Logger, m *metrics) ([]kgo.Opt, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(cfg.Brokers...),
		kgo.ClientID(cfg.ClientID),
		kgo.SoftwareNameAndVersion("starling", "1"),
		kgo.WithLogger(clientLogger{logger}),
		kgo.WithHooks(m),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.MetadataMaxAge(metadataMaxAge),
		kgo.RequestTimeoutOverhead(cfg.RequestTimeout),
		kgo.RetryBackoffFn(clientBackoff),
		kgo.RequestRetries(requestRetries),
		kgo.DisableClientMetrics(),
	}
	if cfg.TLS {
		tlsConfig, err := tlsConfig(cfg)
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(tlsConfig))
	}
	if cfg.SASLMechanism != "" {
		mechanism, err := saslMechanism(cfg)
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.SASL(mechanism))
	}
	return opts, nil
}

// backoff doubles from 50 ms to a second.
func backoff(fails int) time.Duration { return backoffUpTo(maxBackoff, fails) }

// clientBackoff does so for the client's own retries.
func clientBackoff(fails int) time.Duration { return backoffUpTo(maxClientBackoff, fails) }

func backoffUpTo(most time.Duration, fails int) time.Duration {
	return retry.Backoff(50*time.Millisecond, most, fails)
}

func tlsConfig(cfg *Config) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: cfg.TLSServerName, InsecureSkipVerify: cfg.TLSInsecureSkipVerify}
	if cfg.TLSCAFile != "" {
		pem, err := os.ReadFile(cfg.TLSCAFile)
		if err != nil {
			return nil, fmt.Errorf("read tls_ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls_ca_file %s holds no PEM certificate", cfg.TLSCAFile)
		}
	}
	if cfg.TLSCertFile != "" {
		cert, err := tls.LoadX509KeyPair(cfg.TLSCertFile, cfg.TLSKeyFile)
		if err != nil {
			return nil, fmt.Errorf("load tls_cert_file and tls_key_file: %w", err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	return t, nil
}

// saslMechanism reads the password anew for every connection, so that a
// rotated password file needs no restart.
func saslMechanism(cfg *Config) (sasl.Mechanism, error) {
	password := func() (string, error) {
		if cfg.SASLPasswordFile == "" {
			return cfg.SASLPassword.Reveal(), nil
		}
		b, err := os.ReadFile(cfg.SASLPasswordFile)
		if err != nil {
			return "", fmt.Errorf("read sasl_password_file: %w", err)
		}
		return strings.TrimRight(string(b), "\r\n"), nil
	}
	if _, err := password(); err != nil {
		return nil, err
	}
	scramAuth := func(context.Context) (scram.Auth, error) {
		pass, err := password()
		return scram.Auth{User: cfg.SASLUser, Pass: pass}, err
	}
	switch cfg.SASLMechanism {
	case "plain":
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			pass, err := password()
			return plain.Auth{User: cfg.SASLUser, Pass: pass}, err
		}), nil
	case "scram-sha-256":
		return scram.Sha256(scramAuth), nil
	case "scram-sha-512":
		return scram.Sha512(scramAuth), nil
	}
	return nil, errors.New("unknown sasl_mechanism " + cfg.SASLMechanism)
}

func codec(name string) kgo.CompressionCodec {
	switch name {
	case "lz4":
		return kgo.Lz4Compression()
	case "snappy":
		return kgo.SnappyCompression()
	case "zstd":
		return kgo.ZstdCompression()
	}
	return kgo.NoCompression()
}

// clientLogger passes on what the client library logs. Its informative
// messages report every rebalance and transaction, which is debugging here.
type clientLogger struct{ logger *slog.Logger }

func (l clientLogger) Level() kgo.LogLevel {
	switch ctx := context.Background(); {
	case l.logger.Enabled(ctx, slog.LevelDebug):
		return kgo.LogLevelInfo
	case l.logger.Enabled(ctx, slog.LevelWarn):
		return kgo.LogLevelWarn
	}
	return kgo.LogLevelError
}

func (l clientLogger) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	to := slog.LevelDebug
	switch level {
	case kgo.LogLevelError:
		to = slog.LevelError
	case kgo.LogLevelWarn:
		to = slog.LevelWarn
	}
	l.logger.Log(context.Background(), to, "kafka client: "+msg, keyvals...)
}
