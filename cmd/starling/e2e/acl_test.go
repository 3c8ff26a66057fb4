package e2e

import (
	"bufio"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/starling-fleet/starling/internal/auth/mint"
	"github.com/starling-fleet/starling/internal/kafkatest"
	"github.com/starling-fleet/starling/schemas/topics"
)

// principals gives each role a certificate of its own for Kafka, by an authority
// beside the deployment's.
type principals struct {
	dir string
	// authorities is a file with both authorities' certificates.
	authorities string
}

func newPrincipals(t *testing.T, deploymentCA string) principals {
	t.Helper()
	authority, err := mint.NewAuthority("roles", time.Now().Add(time.Hour))
	require.NoError(t, err)
	p := principals{dir: t.TempDir()}
	write := func(name string, content []byte) string {
		file := filepath.Join(p.dir, name)
		require.NoError(t, os.WriteFile(file, content, 0o600))
		return file
	}
	for _, role := range append(topics.Roles(), "fanout", "nobody") {
		cert, key, err := authority.Certificate("starling-"+role, nil)
		require.NoError(t, err)
		write(role+".pem", cert)
		write(role+".key", key)
	}
	own, err := os.ReadFile(deploymentCA)
	require.NoError(t, err)
	p.authorities = write("authorities.pem", append(own, authority.PEM...))
	return p
}

// settings are those by which a role is itself at Kafka.
func (p principals) settings(role string) map[string]string {
	return map[string]string{
		"STARLING_KAFKA_TLS_CERT_FILE": filepath.Join(p.dir, role+".pem"), "STARLING_KAFKA_TLS_KEY_FILE": filepath.Join(p.dir, role+".key"),
		"STARLING_KAFKA_CREATE_TOPICS": "false",
	}
}

// asking has brokers ask their ACLs for everyone but themselves, whose certificate
// is the deployment's, and who reach the controller without one.
func asking(tls kafkatest.TLS) kafkatest.Options {
	return kafkatest.Options{TLS: &tls, Properties: map[string]string{
		"authorizer.class.name":          "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"allow.everyone.if.no.acl.found": "false",
		"super.users":                    "User:ANONYMOUS;User:CN=localhost",
	}}
}

// permit makes the topics as an operator, and gives each role what `starling topics
// acls` prints.
func (d *deployment) permit() {
	d.t.Helper()
	operator := d.kafka()
	maps.Copy(operator, map[string]string{
		"STARLING_KAFKA_BROKERS":       d.environ("ingest")["STARLING_KAFKA_BROKERS"],
		"STARLING_KAFKA_TLS_CERT_FILE": d.file("cert.pem"), "STARLING_KAFKA_TLS_KEY_FILE": d.file("key.pem"),
	})
	var environ []string
	for key, value := range operator {
		environ = append(environ, key+"="+value)
	}
	d.run(environ, "topics", "create")

	request := kmsg.NewPtrCreateACLsRequest()
	lines := bufio.NewScanner(strings.NewReader(d.run(environ, "topics", "acls", "--principal", "User:CN=starling-{role}", "--json")))
	for lines.Scan() {
		var acl struct {
			Principal, Kind, Name string
			Prefixed              bool
			Operations            []string
		}
		require.NoError(d.t, json.Unmarshal(lines.Bytes(), &acl), lines.Text())
		for _, name := range acl.Operations {
			c := kmsg.NewCreateACLsRequestCreation()
			var err error
			c.ResourceType, err = kmsg.ParseACLResourceType(acl.Kind)
			require.NoError(d.t, err)
			c.Operation, err = kmsg.ParseACLOperation(name)
			require.NoError(d.t, err)
			c.ResourceName, c.Principal, c.Host, c.PermissionType = acl.Name, acl.Principal, "*", kmsg.ACLPermissionTypeAllow
			c.ResourcePatternType = kmsg.ACLResourcePatternTypeLiteral
			if acl.Prefixed {
				c.ResourcePatternType = kmsg.ACLResourcePatternTypePrefixed
			}
			request.Creations = append(request.Creations, c)
		}
	}
	require.NotEmpty(d.t, request.Creations)
	cl, err := kgo.NewClient(kgo.SeedBrokers(operator["STARLING_KAFKA_BROKERS"]), kgo.DialTLSConfig(d.config(true)))
	require.NoError(d.t, err)
	defer cl.Close()
	answer, err := request.RequestWith(d.t.Context(), cl)
	require.NoError(d.t, err)
	for _, result := range answer.Results {
		require.NoError(d.t, kerr.ErrorForCode(result.ErrorCode))
	}

	// Who has no ACL is told so, and the start ends.
	for key, value := range d.principals.settings("nobody") {
		environ = append(environ, key+"="+value)
	}
	require.Contains(d.t, d.fails(environ, "topics", "describe"), "TOPIC_AUTHORIZATION_FAILED")
}
