package clickhouse

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/starling-fleet/starling/internal/config"
	"github.com/starling-fleet/starling/internal/valid"
)

// Config names a ClickHouse. Without addresses there is none.
type Config struct {
	Addrs        []string      `koanf:"addrs" help:"ClickHouse servers, host:port, of which the first that answers is used: replicas of one another. Empty turns this sink off."`
	Protocol     string        `koanf:"protocol" help:"How to talk to them: native (port 9000, with TLS 9440) or http (8123, with TLS 8443)."`
	Database     string        `koanf:"database" help:"Database of history's tables, which starling history migrate makes."`
	Username     string        `koanf:"username" help:"User of ClickHouse."`
	Password     config.Secret `koanf:"password" help:"Password of that user; password_file is the better place."`
	PasswordFile string        `koanf:"password_file" help:"File with the password; a trailing line end is dropped. Read when the process starts."`
	TLS          bool          `koanf:"tls" help:"Talk TLS to ClickHouse."`
	TLSCAFile    string        `koanf:"tls_ca_file" help:"PEM file of the authorities that sign ClickHouse's certificate; empty means the system's."`
	TLSCertFile  string        `koanf:"tls_cert_file" help:"PEM file of this client's certificate; empty means none."`
	TLSKeyFile   string        `koanf:"tls_key_file" help:"PEM file of the key of tls_cert_file."`

	DialTimeout time.Duration `koanf:"dial_timeout" help:"How long a connection may take to be made."`
	Timeout     time.Duration `koanf:"timeout" help:"How long an insert or another statement may take."`
	Retention   time.Duration `koanf:"retention" help:"How long rows are kept, by device time, in whole days; 0 keeps them for ever. starling history migrate puts it in force."`

	RollupInterval time.Duration `koanf:"rollup_interval" help:"How often statistics of cells are computed anew from the fixes of hours that have changed; 0 turns them off. A pass that takes long makes the pauses longer."`
}

const day = 24 * time.Hour

// DefaultConfig names no ClickHouse.
func DefaultConfig() Config {
	return Config{Protocol: "native", Database: "starling", Username: "default", DialTimeout: 5 * time.Second, Timeout: time.Minute, RollupInterval: time.Minute}
}

// On returns whether a ClickHouse is named.
func (c *Config) On() bool { return len(c.Addrs) > 0 }

var names = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// Validate returns all faults of c joined, each naming its field and rule, or nil.
func (c *Config) Validate() error {
	var faults valid.Faults
	for _, addr := range c.Addrs {
		_, _, err := net.SplitHostPort(addr)
		faults.Need(err == nil, "addrs", addr, "host:port")
	}
	faults.Need(c.Protocol == "native" || c.Protocol == "http", "protocol", c.Protocol, "native or http")
	faults.Need(names.MatchString(c.Database), "database", c.Database, "a name of letters, digits and underscores, at most 64")
	faults.Need(c.Username != "" || !c.On(), "username", c.Username, "set")
	faults.Need(c.Password == "" || c.PasswordFile == "", "password_file", c.PasswordFile, "the only one that is set of it and password")
	faults.Need(c.TLS || c.TLSCAFile == "" && c.TLSCertFile == "", "tls", c.TLS, "true with tls_ca_file or tls_cert_file")
	faults.Need((c.TLSCertFile == "") == (c.TLSKeyFile == ""), "tls_cert_file", c.TLSCertFile, "set together with tls_key_file")
	valid.Between(&faults, "dial_timeout", c.DialTimeout, 10*time.Millisecond, time.Minute)
	valid.Between(&faults, "timeout", c.Timeout, time.Second, time.Hour)
	faults.Need(c.Retention >= 0 && c.Retention%day == 0, "retention", c.Retention, "0 or whole days, such as 720h")
	faults.Need(c.RollupInterval == 0 || c.RollupInterval >= time.Second && c.RollupInterval <= day, "rollup_interval", c.RollupInterval, "0 or between 1s and 24h")
	return faults.Err()
}

// open returns a client, which connects when it is first used.
func (c *Config) open(database string) (driver.Conn, error) {
	password := c.Password.Reveal()
	if c.PasswordFile != "" {
		b, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("read password_file: %w", err)
		}
		password = strings.TrimRight(string(b), "\r\n")
	}
	o := ch.Options{
		Addr: c.Addrs, Auth: ch.Auth{Database: database, Username: c.Username, Password: password},
		DialTimeout: c.DialTimeout, ReadTimeout: c.Timeout, MaxOpenConns: maxConnections, MaxIdleConns: maxConnections,
		Compression: &ch.Compression{Method: ch.CompressionLZ4}, ConnOpenStrategy: ch.ConnOpenInOrder,
	}
	if c.Protocol == "http" {
		o.Protocol = ch.HTTP
	}
	if c.TLS {
		t, err := c.tlsConfig()
		if err != nil {
			return nil, err
		}
		o.TLS = t
	}
	conn, err := ch.Open(&o)
	if err != nil {
		return nil, fmt.Errorf("clickhouse: %w", err)
	}
	return conn, nil
}

func (c *Config) tlsConfig() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLSCAFile != "" {
		pem, err := os.ReadFile(c.TLSCAFile)
		if err != nil {
			return nil, fmt.Errorf("read tls_ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls_ca_file %s has no certificate", c.TLSCAFile)
		}
	}
	if c.TLSCertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.TLSCertFile, c.TLSKeyFile)
		if err != nil {
			return nil, fmt.Errorf("load tls_cert_file and tls_key_file: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// ErrOff is returned when no ClickHouse is named.
var ErrOff = errors.New("history.clickhouse.addrs is empty")

// maxConnections bounds the connections of one sink or store.
const maxConnections = 8

// bounded gives a statement the time that it may take.
func (c *Config) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.Timeout)
}
