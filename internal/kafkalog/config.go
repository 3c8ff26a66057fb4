package kafkalog

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/starling-fleet/starling/internal/config"
	"github.com/starling-fleet/starling/schemas/topics"
)

// Config sets how Starling uses a Kafka cluster. docs/kafka.md reports why the
// timeouts are what they are.
type Config struct {
	Brokers  []string `koanf:"brokers" help:"Kafka brokers to ask first, as host:port; empty means the local log."`
	ClientID string   `koanf:"client_id" help:"Name by which the brokers know this process, in their logs and quotas."`

	TLS                   bool   `koanf:"tls" help:"Speak TLS with the brokers."`
	TLSCAFile             string `koanf:"tls_ca_file" help:"PEM file of the authorities that sign the brokers' certificates; empty means the system's."`
	TLSCertFile           string `koanf:"tls_cert_file" help:"PEM file of this client's certificate; empty means none."`
	TLSKeyFile            string `koanf:"tls_key_file" help:"PEM file of the key of tls_cert_file."`
	TLSServerName         string `koanf:"tls_server_name" help:"Name that the brokers' certificates must bear; empty means each broker's host."`
	TLSInsecureSkipVerify bool   `koanf:"tls_insecure_skip_verify" help:"Accept any certificate: anybody in between can then read and forge everything. For tests only."`

	SASLMechanism    string        `koanf:"sasl_mechanism" help:"How to prove identity: plain, scram-sha-256 or scram-sha-512; empty means not at all."`
	SASLUser         string        `koanf:"sasl_user" help:"User name for SASL."`
	SASLPassword     config.Secret `koanf:"sasl_password" help:"Password for SASL; sasl_password_file is the better place."`
	SASLPasswordFile string        `koanf:"sasl_password_file" help:"File with the password for SASL; a trailing line end is dropped."`

	// Partitions is the number of partitions of every topic. It is set once
	// for all rooms, outside of this section.
	Partitions int `koanf:"-"`

	TopicPrefix       string `koanf:"topic_prefix" help:"Put before the names of topics, groups and transactions, so that several Starlings can share a cluster."`
	CreateTopics      bool   `koanf:"create_topics" help:"Create missing topics at start; otherwise a missing topic is an error."`
	ReplicationFactor int    `koanf:"replication_factor" help:"Replicas of the topics that are created; 0 means 3, or 1 where there are fewer than three brokers."`
	MinISR            int    `koanf:"min_isr" help:"Replicas that must have a record before it is acknowledged (min.insync.replicas); 0 means replication_factor - 1, at least 1."`

	MaxBufferedBytes int           `koanf:"max_buffered_bytes" help:"Bytes of records that wait for the brokers' acknowledgement before appends block."`
	Linger           time.Duration `koanf:"linger" help:"How long a record waits for others of its partition before it is sent."`
	Compression      string        `koanf:"compression" help:"Compression of batches: none, lz4, snappy or zstd."`
	AppendTimeout    time.Duration `koanf:"append_timeout" help:"How long a record that was never sent may wait for its partition's leader before its append fails."`
	RequestTimeout   time.Duration `koanf:"request_timeout" help:"How long a broker may take to answer before the connection is given up."`

	FetchMaxBytes          int           `koanf:"fetch_max_bytes" help:"Bytes that a broker sends at most in answer to one fetch."`
	FetchMaxPartitionBytes int           `koanf:"fetch_max_partition_bytes" help:"Bytes of one partition that a broker sends at most in answer to one fetch."`
	FetchMaxWait           time.Duration `koanf:"fetch_max_wait" help:"How long a broker waits for new records before it answers a fetch with none."`
	ReaderBufferBytes      int           `koanf:"reader_buffer_bytes" help:"Bytes of one partition that are read ahead before its fetching pauses."`

	SessionTimeout     time.Duration `koanf:"session_timeout" help:"How long the group waits for a tracker's heartbeat before it gives its partitions away."`
	HeartbeatInterval  time.Duration `koanf:"heartbeat_interval" help:"Time between a tracker's heartbeats; at most a third of session_timeout."`
	HandoverTimeout    time.Duration `koanf:"handover_timeout" help:"How long a tracker may take to hand a partition over in good order."`
	TransactionTimeout time.Duration `koanf:"transaction_timeout" help:"How long a checkpoint may take before the brokers abort it."`
}

// DefaultConfig is a small cluster's, without brokers.
func DefaultConfig() Config {
	return Config{
		ClientID:               "starling",
		Partitions:             topics.DefaultPartitions,
		CreateTopics:           true,
		MaxBufferedBytes:       64 << 20,
		Linger:                 5 * time.Millisecond,
		Compression:            "none",
		AppendTimeout:          30 * time.Second,
		RequestTimeout:         10 * time.Second,
		FetchMaxBytes:          16 << 20,
		FetchMaxPartitionBytes: 512 << 10,
		FetchMaxWait:           500 * time.Millisecond,
		ReaderBufferBytes:      2 << 20,
		SessionTimeout:         6 * time.Second,
		HeartbeatInterval:      time.Second,
		HandoverTimeout:        30 * time.Second,
		TransactionTimeout:     30 * time.Second,
	}
}

// Validate names every fault of the configuration.
func (c *Config) Validate() error {
	var faults []error
	fault := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(len(c.Brokers) > 0, "brokers is empty: must name at least one host:port")
	for _, b := range c.Brokers {
		_, _, err := net.SplitHostPort(b)
		fault(err == nil, "brokers has %q: must be host:port", b)
	}
	fault(len(c.ClientID) > 0 && len(c.ClientID) <= 200, "client_id has %d characters: must have 1 to 200", len(c.ClientID))
	fault(c.Partitions >= 1 && c.Partitions <= 10_000, "partitions is %d: must be between 1 and 10000", c.Partitions)
	fault(validPrefix(c.TopicPrefix), "topic_prefix is %q: must be at most 100 of the characters A-Z a-z 0-9 . _ -", c.TopicPrefix)
	fault(c.ReplicationFactor >= 0 && c.ReplicationFactor <= 100, "replication_factor is %d: must be between 0 and 100", c.ReplicationFactor)
	fault(c.MinISR >= 0 && (c.ReplicationFactor == 0 || c.MinISR <= c.ReplicationFactor), "min_isr is %d: must be between 0 and replication_factor", c.MinISR)
	faults = append(faults, c.securityFaults()...)
	faults = append(faults, c.flowFaults()...)
	faults = append(faults, c.ownershipFaults()...)
	return errors.Join(faults...)
}

func (c *Config) securityFaults() (faults []error) {
	fault := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	if !c.TLS {
		fault(c.TLSCAFile == "" && c.TLSCertFile == "" && c.TLSKeyFile == "" && c.TLSServerName == "" && !c.TLSInsecureSkipVerify,
			"tls is off although one of the tls_ settings is set: turn it on or clear them")
	}
	fault((c.TLSCertFile == "") == (c.TLSKeyFile == ""), "tls_cert_file and tls_key_file must be set together")
	fault(!c.TLSInsecureSkipVerify || (c.TLSCAFile == "" && c.TLSServerName == ""), "tls_insecure_skip_verify makes tls_ca_file and tls_server_name meaningless: set one or the other")
	if c.SASLMechanism == "" {
		fault(c.SASLUser == "" && c.SASLPassword == "" && c.SASLPasswordFile == "", "sasl_mechanism is empty although sasl_user or a password is set")
		return faults
	}
	fault(slices.Contains([]string{"plain", "scram-sha-256", "scram-sha-512"}, c.SASLMechanism), "sasl_mechanism is %q: must be plain, scram-sha-256 or scram-sha-512", c.SASLMechanism)
	fault(c.SASLUser != "", "sasl_user is empty: sasl_mechanism needs it")
	fault((c.SASLPassword == "") != (c.SASLPasswordFile == ""), "exactly one of sasl_password and sasl_password_file must be set")
	fault(c.SASLMechanism != "plain" || c.TLS, "sasl_mechanism is plain without tls: the password would travel in the clear")
	return faults
}

func (c *Config) flowFaults() (faults []error) {
	fault := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(c.MaxBufferedBytes >= 16<<20, "max_buffered_bytes is %d: must be at least %d, so that the largest record fits", c.MaxBufferedBytes, 16<<20)
	fault(c.Linger >= 0 && c.Linger <= time.Second, "linger is %s: must be between 0 and 1s", c.Linger)
	fault(slices.Contains([]string{"none", "lz4", "snappy", "zstd"}, c.Compression), "compression is %q: must be none, lz4, snappy or zstd", c.Compression)
	fault(c.AppendTimeout >= time.Second, "append_timeout is %s: must be at least 1s", c.AppendTimeout)
	fault(c.RequestTimeout >= time.Second, "request_timeout is %s: must be at least 1s", c.RequestTimeout)
	fault(c.FetchMaxPartitionBytes >= 64<<10, "fetch_max_partition_bytes is %d: must be at least %d", c.FetchMaxPartitionBytes, 64<<10)
	fault(c.FetchMaxBytes >= c.FetchMaxPartitionBytes && c.FetchMaxBytes <= 100<<20, "fetch_max_bytes is %d: must be between fetch_max_partition_bytes and %d", c.FetchMaxBytes, 100<<20)
	fault(c.FetchMaxWait >= 10*time.Millisecond && c.FetchMaxWait <= 30*time.Second, "fetch_max_wait is %s: must be between 10ms and 30s", c.FetchMaxWait)
	fault(c.ReaderBufferBytes >= 64<<10, "reader_buffer_bytes is %d: must be at least %d", c.ReaderBufferBytes, 64<<10)
	return faults
}

func (c *Config) ownershipFaults() (faults []error) {
	fault := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(c.SessionTimeout >= time.Second && c.SessionTimeout <= 30*time.Minute, "session_timeout is %s: must be between 1s and 30m (and within the brokers' group.min.session.timeout.ms and group.max.session.timeout.ms)", c.SessionTimeout)
	fault(c.HeartbeatInterval > 0 && c.HeartbeatInterval <= c.SessionTimeout/3, "heartbeat_interval is %s: must be positive and at most a third of session_timeout (%s)", c.HeartbeatInterval, c.SessionTimeout)
	fault(c.HandoverTimeout >= time.Second && c.HandoverTimeout <= 30*time.Minute, "handover_timeout is %s: must be between 1s and 30m", c.HandoverTimeout)
	fault(c.TransactionTimeout >= time.Second && c.TransactionTimeout <= 15*time.Minute, "transaction_timeout is %s: must be between 1s and 15m (the brokers' transaction.max.timeout.ms)", c.TransactionTimeout)
	return faults
}

func validPrefix(s string) bool {
	for _, r := range s {
		ok := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
		if !ok {
			return false
		}
	}
	return len(s) <= 100
}
