package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/freeport"
	"github.com/starling-fleet/starling/internal/kafkatest"
	"github.com/starling-fleet/starling/internal/redistest"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// deployment runs the roles of docker-compose.yml as processes of this machine: with
// the settings that stand there, save where things are.
type deployment struct {
	t        *testing.T
	secrets  string // made by `starling token deployment`, as there
	services map[string]any
	places   *strings.Replacer // of what the file names to what it is here
	addrs    map[string]string // of servers, by the variable that sets them and by role before it
	tls      *tls.Config
	// principals are who the roles are for Kafka.
	principals principals
}

// newDeployment makes keys, certificates and tokens, and starts a Kafka that speaks
// nothing but TLS with clients whose certificate it knows and asks its ACLs what each
// may do, and a Redis.
func newDeployment(t *testing.T) *deployment {
	t.Helper()
	kafkatest.Need(t)
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docker-compose.yml"))
	require.NoError(t, err)
	file, err := yaml.Parser().Unmarshal(text)
	require.NoError(t, err)
	d := &deployment{t: t, secrets: filepath.Join(t.TempDir(), "made"), services: file["services"].(map[string]any), addrs: map[string]string{}}
	command := d.services["secrets"].(map[string]any)["command"].(string)
	d.run(nil, strings.Fields(strings.Replace(command, "/secrets/made", d.secrets, 1))...)

	roots := x509.NewCertPool()
	ca, err := os.ReadFile(d.file("ca.pem"))
	require.NoError(t, err)
	require.True(t, roots.AppendCertsFromPEM(ca))
	cert, err := tls.LoadX509KeyPair(d.file("cert.pem"), d.file("key.pem"))
	require.NoError(t, err)
	d.tls = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{cert}}

	d.principals = newPrincipals(t, d.file("ca.pem"))
	kafka, err := kafkatest.Start(t.Context(), asking(kafkatest.TLS{CertFile: d.file("cert.pem"), KeyFile: d.file("key.pem"), CAFile: d.principals.authorities}))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, kafka.Stop()) })
	d.places = strings.NewReplacer("/secrets/made", d.secrets, "kafka:19092", kafka.Brokers()[0], "redis:6379", redistest.Start(t).Addr(),
		"/data/lake", filepath.Join(t.TempDir(), "lake"))
	d.permit()
	return d
}

func (d *deployment) file(name string) string { return filepath.Join(d.secrets, name) }

// run runs a command to its end and returns what it prints.
func (d *deployment) run(environ []string, args ...string) string {
	d.t.Helper()
	out, err := d.ends(environ, args...)
	require.NoError(d.t, err, "starling %s: %s", strings.Join(args, " "), out)
	return out
}

// fails is run for a command that must not succeed.
func (d *deployment) fails(environ []string, args ...string) string {
	d.t.Helper()
	out, err := d.ends(environ, args...)
	require.Error(d.t, err, "starling %s: %s", strings.Join(args, " "), out)
	return out
}

func (d *deployment) ends(environ []string, args ...string) (string, error) {
	cmd := exec.CommandContext(d.t.Context(), binary(d.t), args...)
	cmd.Env = append(os.Environ(), environ...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// token is one of those that the deployment came with, or with another scope.
func (d *deployment) token(scope string) string {
	d.t.Helper()
	if text, err := os.ReadFile(d.file(scope + ".token")); err == nil {
		return strings.TrimSpace(string(text))
	}
	return d.mint(scope, "*")
}

func (d *deployment) mint(scope, vehicle string) string {
	d.t.Helper()
	return strings.TrimSpace(d.run(nil, "token", "--key", d.file("signing.pem"), "--subject", "test", "--scope", scope, "--vehicle", vehicle))
}

// kafka are the settings of everyone who uses the log, besides those of the file.
func (d *deployment) kafka() map[string]string {
	return map[string]string{"STARLING_PARTITIONS": "2", "STARLING_KAFKA_TLS": "true", "STARLING_KAFKA_TLS_CA_FILE": d.file("ca.pem")}
}

// environ are the settings of a service of the file, by their names there.
func (d *deployment) environ(service string) map[string]string {
	d.t.Helper()
	here := map[string]string{}
	for key, value := range d.services[service].(map[string]any)["environment"].(map[string]any) {
		here[key] = d.places.Replace(value.(string))
	}
	return here
}

// begin starts a role with the settings of a service of the file, and more.
func (d *deployment) begin(role, service string, more map[string]string) {
	d.t.Helper()
	environ := d.environ(service)
	environ["STARLING_SERVER_METRICS_LISTEN"] = "set below"
	listeners := slices.Collect(func(yield func(string) bool) {
		for key := range environ {
			if strings.HasSuffix(key, "_LISTEN") && !yield(key) {
				return
			}
		}
	})
	addrs, err := freeport.Addrs(len(listeners))
	require.NoError(d.t, err)
	for i, key := range listeners {
		environ[key] = addrs[i]
		d.addrs[role+" "+strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(key, "STARLING_SERVER_"), "_LISTEN"))] = addrs[i]
	}
	if environ["STARLING_RIDES_ADVERTISE"] != "" {
		environ["STARLING_RIDES_ADVERTISE"] = environ["STARLING_SERVER_RIDES_LISTEN"]
	}
	maps.Copy(environ, map[string]string{
		// What the file does without: certificates of clients.
		"STARLING_TLS_CLIENT_CA_FILE": d.file("ca.pem"), "STARLING_TLS_REQUIRE_CLIENT_CERTIFICATES": "matcher,rides,metrics",
	})
	maps.Copy(environ, d.kafka())
	maps.Copy(environ, d.principals.settings(role))
	maps.Copy(environ, more)
	cmd := exec.Command(binary(d.t), role)
	cmd.Env = os.Environ()
	for key, value := range environ {
		cmd.Env = append(cmd.Env, key+"="+value)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(d.t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	d.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case err := <-ended:
			assert.NoError(d.t, err, "%s", &out)
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			<-ended
			d.t.Errorf("%s did not end within a minute", role)
		}
	})
	admin := "https://" + d.addrs[role+" admin"]
	require.Eventually(d.t, func() bool { return d.status(admin+"/readyz", "", false) == http.StatusOK }, 2*time.Minute, 50*time.Millisecond, "%s is not ready", role)
}

// status is the HTTP status of an answer, 0 if there is none.
func (d *deployment) status(url, token string, certificate bool) int {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, url, nil)
	require.NoError(d.t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := (&http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: d.config(certificate), DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0
	}
	require.NoError(d.t, answer.Body.Close())
	return answer.StatusCode
}

func (d *deployment) config(certificate bool) *tls.Config {
	c := d.tls.Clone()
	if !certificate {
		c.Certificates = nil
	}
	return c
}

// bearing has every call of a connection bear a token.
type bearing string

func (b bearing) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearing) RequireTransportSecurity() bool { return true }

func (d *deployment) dial(server string, certificate bool, options ...grpc.DialOption) *grpc.ClientConn {
	d.t.Helper()
	options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(d.config(certificate))))
	conn, err := grpc.NewClient(d.addrs[server], options...)
	require.NoError(d.t, err)
	d.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// refusals asks every listener with no token, with one that permits something else,
// and without a certificate where one is asked for.
func (d *deployment) refusals() {
	d.t.Helper()
	calls := map[string]func(context.Context, *grpc.ClientConn) error{
		"ingest ingest": func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := starlingv1.NewIngestServiceClient(c).SendReport(ctx, &starlingv1.SendReportRequest{Report: reportOf("car-1")})
			return err
		},
		"rides rides": func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := starlingv1.NewRideServiceClient(c).ListRides(ctx, &starlingv1.ListRidesRequest{})
			return err
		},
	}
	for _, fleet := range []string{"matcher matcher", "fanout matcher"} {
		calls[fleet] = func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := starlingv1.NewFleetServiceClient(c).ListVehicles(ctx, &starlingv1.ListVehiclesRequest{})
			return err
		}
	}
	foreign := d.foreign()
	for server, call := range calls {
		mutual := server == "rides rides" || server == "matcher matcher"
		for token, want := range map[string]struct {
			code   codes.Code
			reason auth.Reason
		}{
			"":                 {codes.Unauthenticated, auth.Missing},
			foreign:            {codes.Unauthenticated, auth.UnknownKey},
			d.token("metrics"): {codes.PermissionDenied, auth.ScopeMissing},
		} {
			ctx := d.t.Context()
			if token != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
			}
			err := call(ctx, d.dial(server, mutual))
			require.Equal(d.t, want.code, status.Code(err), "%s: %v", server, err)
			require.Equal(d.t, string(want.reason), rpcstatus.ReasonOf(err), server)
		}
		if mutual {
			ctx := metadata.AppendToOutgoingContext(d.t.Context(), "authorization", "Bearer "+d.token("dispatch"))
			require.Equal(d.t, codes.Unavailable, status.Code(call(ctx, d.dial(server, false))), "%s without a certificate", server)
		}
	}
	for _, role := range []string{"ingest", "tracker", "matcher", "rides", "history", "fanout"} {
		config := "https://" + d.addrs[role+" admin"] + "/config"
		require.Equal(d.t, http.StatusUnauthorized, d.status(config, "", false), role)
		require.Equal(d.t, http.StatusUnauthorized, d.status(config, foreign, false), role)
		require.Equal(d.t, http.StatusForbidden, d.status(config, d.token("dispatch"), false), role)
		require.Equal(d.t, http.StatusOK, d.status(config, d.token("operate"), false), role)
		metrics := "https://" + d.addrs[role+" metrics"] + "/metrics"
		require.Zero(d.t, d.status(metrics, d.token("metrics"), false), "%s without a certificate", role)
		require.Equal(d.t, http.StatusOK, d.status(metrics, "", true), role)
	}
	for _, role := range []string{"matcher", "fanout"} {
		list := "https://" + d.addrs[role+" json"] + "/v1/vehicles"
		require.Equal(d.t, http.StatusUnauthorized, d.status(list, "", false), role)
		require.Equal(d.t, http.StatusUnauthorized, d.status(list, foreign, false), role)
		require.Equal(d.t, http.StatusForbidden, d.status(list, d.token("report"), false), role)
		require.Equal(d.t, http.StatusOK, d.status(list, d.token("dispatch"), false), role)
	}
}

// foreign is a token that permits everything, of somebody else's key.
func (d *deployment) foreign() string {
	d.t.Helper()
	other := filepath.Join(d.t.TempDir(), "keys")
	d.run(nil, "token", "keygen", "--out", other)
	return strings.TrimSpace(d.run(nil, "token", "--key", filepath.Join(other, "signing.pem"), "--subject", "test", "--vehicle", "*",
		"--scope", "report dispatch operate metrics service"))
}

// TestRolesOnKafkaWithTLSAndTokens runs what docker-compose.yml runs, each role a
// process, on a Kafka by TLS, and a fan-out before the matcher. Whoever has no right
// to is refused by each listener; a vehicle that is reported is found, and given a
// ride to.
func TestRolesOnKafkaWithTLSAndTokens(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	more := map[string]map[string]string{"history": {"STARLING_HISTORY_BATCH_INTERVAL": "1s"}}
	for _, role := range []string{"ingest", "tracker", "matcher", "rides", "history"} {
		require.Equal(t, role, d.services[role].(map[string]any)["command"])
		d.begin(role, role, more[role])
	}
	d.begin("fanout", "matcher", map[string]string{
		"STARLING_MATCHER_REGIONS": "all=rest", "STARLING_FANOUT_REPLICAS": "all=" + d.addrs["matcher matcher"],
		"STARLING_TLS_REQUIRE_CLIENT_CERTIFICATES": "metrics", // commands have none
	})
	d.refusals()

	// What the simulator and `ask` of the file have: the authority and a token.
	ca := "STARLING_SERVER_CA_FILE=" + d.file("ca.pem")
	d.run([]string{ca, "STARLING_TOKEN_FILE=" + d.file("report.token")}, "send", "sim-7", "--ingest", d.addrs["ingest ingest"], "--at", "48.2085,16.3730", "--available", "free")
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		require.Contains(c, d.run([]string{ca, "STARLING_TOKEN_FILE=" + d.file("dispatch.token")}, "nearest", "--matcher", d.addrs["fanout matcher"], "--at", "48.2085,16.3730"), "sim-7")
	}, time.Minute, 50*time.Millisecond)
	require.EventuallyWithT(t, func(c *assert.CollectT) { // history has planned, written and stored a batch
		fixes, err := d.ends(nil, "track", "sim-7", "--lake", d.places.Replace("/data/lake"))
		require.NoError(c, err)
		require.Contains(c, fixes, "48.208")
	}, time.Minute, 200*time.Millisecond)
	ride(t, d.dial("ingest ingest", false, grpc.WithPerRPCCredentials(bearing(d.mint("report", "ride-car")))), nil,
		d.dial("rides rides", true, grpc.WithPerRPCCredentials(bearing(d.token("dispatch")))))
}
