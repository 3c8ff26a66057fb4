package kafkalog_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/starling-fleet/starling/internal/kafkalog"
	"github.com/starling-fleet/starling/schemas/topics"
)

func tryOpen(cfg kafkalog.Config) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l, err := kafkalog.Open(ctx, cfg, topics.All(), prometheus.NewRegistry(), testLogger())
	if err == nil {
		err = l.Close()
	}
	return err
}

func alter(t *testing.T, brokers []string, topic, key, value string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	require.NoError(t, err)
	defer cl.Close()
	resp, err := kadm.NewClient(cl).AlterTopicConfigs(context.Background(), []kadm.AlterConfig{{Name: key, Value: &value}}, topic)
	require.NoError(t, err)
	_, err = resp.On(topic, nil)
	require.NoError(t, err)
}

// TestOpenRefuses topics that would break a promise of the log.
func TestOpenRefuses(t *testing.T) {
	onBoth(t, func(t *testing.T, brokers []string) {
		cfg := testConfig(brokers)
		missing := cfg
		missing.CreateTopics = false
		require.ErrorContains(t, tryOpen(missing), "topic "+cfg.TopicPrefix+"locations does not exist")
		require.NoError(t, tryOpen(cfg))
		require.NoError(t, tryOpen(missing), "topics that exist are taken")

		other := cfg
		other.Partitions = 5
		require.ErrorContains(t, tryOpen(other), "has 4 partitions, but 5 are configured")
		locations := cfg.TopicPrefix + topics.Locations
		for _, c := range []struct{ topic, key, bad, good string }{
			{locations, "message.timestamp.type", "CreateTime", "LogAppendTime"},
			{locations, "max.message.bytes", "1000", "2000000"},
			{locations, "cleanup.policy", "compact", "delete"},
			{cfg.TopicPrefix + topics.TrackerState, "cleanup.policy", "delete", "compact"},
		} {
			alter(t, brokers, c.topic, c.key, c.bad)
			err := tryOpen(cfg)
			require.ErrorContains(t, err, "topic "+c.topic+" has "+c.key+"="+c.bad)
			alter(t, brokers, c.topic, c.key, c.good)
			require.NoError(t, tryOpen(cfg))
		}
		stricter := cfg
		stricter.ReplicationFactor, stricter.MinISR = 3, 2
		require.ErrorContains(t, tryOpen(stricter), "min.insync.replicas=1: must be 2")
		alter(t, brokers, locations, "retention.ms", "1000000000")
		require.NoError(t, tryOpen(cfg), "how long records are kept is the operator's to say")
	})
}

func TestEnsureAndDescribeTopics(t *testing.T) {
	onBoth(t, func(t *testing.T, brokers []string) {
		ctx := context.Background()
		cfg := testConfig(brokers)
		a, err := kafkalog.NewAdmin(cfg, topics.All(), testLogger())
		require.NoError(t, err)
		defer a.Close()
		before, err := a.DescribeTopics(ctx)
		require.NoError(t, err)
		require.Error(t, before.Err())
		require.Zero(t, before.Epoch)
		created, err := a.EnsureTopics(ctx)
		require.NoError(t, err)
		require.Equal(t, int64(1), created.Epoch)
		for _, r := range created.Topics {
			require.True(t, r.Created, r.Name)
		}
		again, err := a.EnsureTopics(ctx)
		require.NoError(t, err)
		described, err := a.DescribeTopics(ctx)
		require.NoError(t, err)
		require.Equal(t, again, described)
		require.NoError(t, described.Err())
		require.Len(t, described.Topics, 1+len(topics.All()))
		for _, r := range described.Topics {
			require.Empty(t, r.Differences, r.Name)
			require.Equal(t, 1, r.Replicas)
			require.Equal(t, "LogAppendTime", r.Configs["message.timestamp.type"])
			require.Equal(t, strings.HasSuffix(r.Name, "state") || strings.HasSuffix(r.Name, "meta"), r.Configs["cleanup.policy"] == "compact")
		}
	})
}

func TestTheEpochIsRaisedByCommandOnly(t *testing.T) {
	onBoth(t, func(t *testing.T, brokers []string) {
		ctx := context.Background()
		cfg := testConfig(brokers)
		require.Equal(t, int64(1), openLog(t, cfg).Epoch())
		a, err := kafkalog.NewAdmin(cfg, topics.All(), testLogger())
		require.NoError(t, err)
		defer a.Close()
		for _, c := range []struct{ atLeast, want int64 }{{0, 2}, {0, 3}, {10, 10}, {5, 11}} {
			epoch, err := a.RaiseEpoch(ctx, c.atLeast)
			require.NoError(t, err)
			require.Equal(t, c.want, epoch)
			require.Equal(t, c.want, openLog(t, cfg).Epoch())
		}

		// With its topic the epoch is lost, and no new one is made up.
		cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
		require.NoError(t, err)
		defer cl.Close()
		const attempts = 3
		meta := cfg.TopicPrefix + "starling-meta"
		_, err = kadm.NewClient(cl).DeleteTopic(ctx, meta)
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			all, err := kadm.NewClient(cl).ListTopics(ctx)
			return err == nil && !all.Has(meta)
		}, patience, 100*time.Millisecond)
		// A try that meets the topic half deleted may last as long as the patience.
		require.Eventually(t, func() bool {
			err := tryOpen(cfg)
			return err != nil && strings.Contains(err.Error(), "the log's epoch was lost")
		}, attempts*patience, 100*time.Millisecond)
		_, err = a.RaiseEpoch(ctx, 0)
		require.ErrorContains(t, err, "name one above any that was in use")
		epoch, err := a.RaiseEpoch(ctx, 12)
		require.NoError(t, err)
		require.Equal(t, int64(12), epoch)
		require.Equal(t, int64(12), openLog(t, cfg).Epoch())
	})
}

func TestOpenWithTLSAndCredentials(t *testing.T) {
	dir := t.TempDir()
	cert, caFile := selfSigned(t, dir)
	c := newFake(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "starling", "right"), kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}}))
	file := filepath.Join(dir, "password")
	require.NoError(t, os.WriteFile(file, []byte("right\n"), 0o600))
	cfg := testConfig(c.ListenAddrs())
	cfg.SASLMechanism, cfg.SASLUser, cfg.SASLPasswordFile = "scram-sha-256", "starling", file
	cfg.TLS, cfg.TLSCAFile = true, caFile
	require.NoError(t, tryOpen(cfg))

	for what, change := range map[string]func(*kafkalog.Config){
		"a wrong password":             func(c *kafkalog.Config) { c.SASLPasswordFile, c.SASLPassword = "", "wrong" },
		"an authority that is unknown": func(c *kafkalog.Config) { c.TLSCAFile = "" },
		"another name":                 func(c *kafkalog.Config) { c.TLSServerName = "kafka.example" },
	} {
		bad := cfg
		change(&bad)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := kafkalog.Open(ctx, bad, topics.All(), prometheus.NewRegistry(), testLogger())
		cancel()
		require.Error(t, err, what)
	}
	cfg.TLSCAFile, cfg.TLSInsecureSkipVerify = "", true
	require.NoError(t, tryOpen(cfg))
}

// selfSigned makes a certificate for 127.0.0.1 and writes it to a file.
func selfSigned(t *testing.T, dir string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	file := filepath.Join(dir, "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

func TestValidateNamesEveryFault(t *testing.T) {
	good := kafkalog.DefaultConfig()
	good.Brokers = []string{"k1:9092"}
	require.NoError(t, good.Validate())
	for fault, change := range map[string]func(*kafkalog.Config){
		"brokers is []":                          func(c *kafkalog.Config) { c.Brokers = nil },
		`brokers is "k1"`:                        func(c *kafkalog.Config) { c.Brokers = []string{"k1"} },
		`client_id is ""`:                        func(c *kafkalog.Config) { c.ClientID = "" },
		"partitions is 0":                        func(c *kafkalog.Config) { c.Partitions = 0 },
		"topic_prefix is":                        func(c *kafkalog.Config) { c.TopicPrefix = "a/b" },
		"replication_factor is -1":               func(c *kafkalog.Config) { c.ReplicationFactor = -1 },
		"min_isr is 3":                           func(c *kafkalog.Config) { c.ReplicationFactor, c.MinISR = 2, 3 },
		"tls is false: must be true with":        func(c *kafkalog.Config) { c.TLSCAFile = "x" },
		"must be set together with tls_key_file": func(c *kafkalog.Config) { c.TLS, c.TLSCertFile = true, "x" },
		"tls_insecure_skip_verify is true":       func(c *kafkalog.Config) { c.TLS, c.TLSInsecureSkipVerify, c.TLSCAFile = true, true, "x" },
		`sasl_mechanism is "": must be set`:      func(c *kafkalog.Config) { c.SASLUser = "u" },
		`sasl_mechanism is "gssapi"`:             func(c *kafkalog.Config) { c.SASLMechanism, c.SASLUser, c.SASLPassword = "gssapi", "u", "p" },
		`sasl_user is "": must be set`:           func(c *kafkalog.Config) { c.SASLMechanism, c.SASLPassword = "scram-sha-512", "p" },
		`sasl_password_file is "": must be set`:  func(c *kafkalog.Config) { c.SASLMechanism, c.SASLUser = "scram-sha-512", "u" },
		"travels in the clear":                   func(c *kafkalog.Config) { c.SASLMechanism, c.SASLUser, c.SASLPassword = "plain", "u", "p" },
		"max_buffered_bytes is 1":                func(c *kafkalog.Config) { c.MaxBufferedBytes = 1 },
		"linger is 2s":                           func(c *kafkalog.Config) { c.Linger = 2 * time.Second },
		`compression is "gzip"`:                  func(c *kafkalog.Config) { c.Compression = "gzip" },
		"append_timeout is 1ms":                  func(c *kafkalog.Config) { c.AppendTimeout = time.Millisecond },
		"request_timeout is 0s":                  func(c *kafkalog.Config) { c.RequestTimeout = 0 },
		"fetch_max_partition_bytes is 1":         func(c *kafkalog.Config) { c.FetchMaxPartitionBytes = 1 },
		"fetch_max_bytes is 65536":               func(c *kafkalog.Config) { c.FetchMaxBytes = 64 << 10 },
		"fetch_max_wait is 0s":                   func(c *kafkalog.Config) { c.FetchMaxWait = 0 },
		"reader_buffer_bytes is 0":               func(c *kafkalog.Config) { c.ReaderBufferBytes = 0 },
		"session_timeout is 10ms":                func(c *kafkalog.Config) { c.SessionTimeout = 10 * time.Millisecond },
		"heartbeat_interval is 3s":               func(c *kafkalog.Config) { c.HeartbeatInterval = 3 * time.Second },
		"handover_timeout is 0s":                 func(c *kafkalog.Config) { c.HandoverTimeout = 0 },
		"transaction_timeout is 16m":             func(c *kafkalog.Config) { c.TransactionTimeout = 16 * time.Minute },
	} {
		cfg := good
		change(&cfg)
		require.ErrorContains(t, cfg.Validate(), fault)
	}
	var bad kafkalog.Config
	require.Greater(t, strings.Count(bad.Validate().Error(), "\n"), 8, "all faults at once")
}

func TestOpenSaysWhichFileIsBad(t *testing.T) {
	for fault, change := range map[string]func(*kafkalog.Config){
		"read sasl_password_file": func(c *kafkalog.Config) {
			c.SASLMechanism, c.SASLUser, c.SASLPasswordFile = "scram-sha-256", "u", "/does/not/exist"
		},
		"holds no PEM certificate":           func(c *kafkalog.Config) { c.TLS, c.TLSCAFile = true, os.DevNull },
		"load tls_cert_file and tls_key_fil": func(c *kafkalog.Config) { c.TLS, c.TLSCertFile, c.TLSKeyFile = true, os.DevNull, os.DevNull },
	} {
		cfg := testConfig([]string{"127.0.0.1:1"})
		change(&cfg)
		require.ErrorContains(t, tryOpen(cfg), fault)
	}
}
