package kafkalog

import (
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/starling-fleet/starling/internal/config"
	"github.com/starling-fleet/starling/internal/valid"
	"github.com/starling-fleet/starling/schemas/topics"
)

// Config sets how Starling uses a Kafka cluster. docs/kafka.md reports why the
// timeouts are what they are.
type Config struct {
	Brokers  []string `koanf:"brokers" help:"Kafka brokers to ask first, as host:port; empty means the local log."`
	ClientID string   `koanf:"client_id" help:"Name by which the brokers know this process, in their logs and quotas."`

	TLS                   bool   `koanf:"tls" help:"Use TLS with the brokers."`
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
	// for all packages, outside of this section.
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
	var faults valid.Faults
	faults.Need(len(c.Brokers) > 0, "brokers", c.Brokers, "at least one host:port")
	for _, b := range c.Brokers {
		_, _, err := net.SplitHostPort(b)
		faults.Need(err == nil, "brokers", b, "host:port")
	}
	faults.Need(len(c.ClientID) > 0 && len(c.ClientID) <= 200, "client_id", c.ClientID, "1 to 200 characters")
	valid.Between(&faults, "partitions", c.Partitions, 1, 10_000)
	faults.Need(validPrefix(c.TopicPrefix), "topic_prefix", c.TopicPrefix, "at most 100 of the characters A-Z a-z 0-9 . _ -")
	valid.Between(&faults, "replication_factor", c.ReplicationFactor, 0, 100)
	faults.Need(c.MinISR >= 0 && (c.ReplicationFactor == 0 || c.MinISR <= c.ReplicationFactor), "min_isr", c.MinISR, "between 0 and replication_factor")
	c.securityFaults(&faults)
	c.flowFaults(&faults)
	c.ownershipFaults(&faults)
	return faults.Err()
}

func (c *Config) securityFaults(faults *valid.Faults) {
	if !c.TLS {
		faults.Need(c.TLSCAFile == "" && c.TLSCertFile == "" && c.TLSKeyFile == "" && c.TLSServerName == "" && !c.TLSInsecureSkipVerify,
			"tls", c.TLS, "true with any of the tls_ settings")
	}
	faults.Need((c.TLSCertFile == "") == (c.TLSKeyFile == ""), "tls_cert_file", c.TLSCertFile, "set together with tls_key_file")
	faults.Need(!c.TLSInsecureSkipVerify || (c.TLSCAFile == "" && c.TLSServerName == ""), "tls_insecure_skip_verify", c.TLSInsecureSkipVerify, "false with tls_ca_file or tls_server_name, which it makes meaningless")
	if c.SASLMechanism == "" {
		faults.Need(c.SASLUser == "" && c.SASLPassword == "" && c.SASLPasswordFile == "", "sasl_mechanism", c.SASLMechanism, "set with sasl_user or a password")
		return
	}
	faults.Need(slices.Contains([]string{"plain", "scram-sha-256", "scram-sha-512"}, c.SASLMechanism), "sasl_mechanism", c.SASLMechanism, "plain, scram-sha-256 or scram-sha-512")
	faults.Need(c.SASLUser != "", "sasl_user", c.SASLUser, "set with sasl_mechanism")
	faults.Need((c.SASLPassword == "") != (c.SASLPasswordFile == ""), "sasl_password_file", c.SASLPasswordFile, "set, or else sasl_password, and not both")
	faults.Need(c.SASLMechanism != "plain" || c.TLS, "sasl_mechanism", c.SASLMechanism, "scram-sha-256 or scram-sha-512 without tls, or the password travels in the clear")
}

func (c *Config) flowFaults(faults *valid.Faults) {
	faults.Need(c.MaxBufferedBytes >= 16<<20, "max_buffered_bytes", c.MaxBufferedBytes, fmt.Sprintf("at least %d, so that the largest record fits", 16<<20))
	valid.Between(faults, "linger", c.Linger, 0, time.Second)
	faults.Need(slices.Contains([]string{"none", "lz4", "snappy", "zstd"}, c.Compression), "compression", c.Compression, "none, lz4, snappy or zstd")
	valid.AtLeast(faults, "append_timeout", c.AppendTimeout, time.Second)
	valid.AtLeast(faults, "request_timeout", c.RequestTimeout, time.Second)
	valid.AtLeast(faults, "fetch_max_partition_bytes", c.FetchMaxPartitionBytes, 64<<10)
	valid.Between(faults, "fetch_max_bytes", c.FetchMaxBytes, c.FetchMaxPartitionBytes, 100<<20)
	valid.Between(faults, "fetch_max_wait", c.FetchMaxWait, 10*time.Millisecond, 30*time.Second)
	valid.AtLeast(faults, "reader_buffer_bytes", c.ReaderBufferBytes, 64<<10)
}

func (c *Config) ownershipFaults(faults *valid.Faults) {
	faults.Need(c.SessionTimeout >= time.Second && c.SessionTimeout <= 30*time.Minute, "session_timeout", c.SessionTimeout, "between 1s and 30m (and within the brokers' group.min.session.timeout.ms and group.max.session.timeout.ms)")
	faults.Need(c.HeartbeatInterval > 0 && c.HeartbeatInterval <= c.SessionTimeout/3, "heartbeat_interval", c.HeartbeatInterval, fmt.Sprintf("positive and at most a third of session_timeout (%s)", c.SessionTimeout))
	valid.Between(faults, "handover_timeout", c.HandoverTimeout, time.Second, 30*time.Minute)
	faults.Need(c.TransactionTimeout >= time.Second && c.TransactionTimeout <= 15*time.Minute, "transaction_timeout", c.TransactionTimeout, "between 1s and 15m (the brokers' transaction.max.timeout.ms)")
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
