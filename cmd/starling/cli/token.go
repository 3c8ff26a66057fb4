package cli

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/auth/mint"
)

func newToken(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "token",
		Short:   "Make a token, keys to sign tokens with, or certificates",
		GroupID: "run",
		Long: `Make a token for development, for a test, or for a service of a first deployment.
A deployment's identity provider makes those of its vehicles and people; claims and
scopes are in docs/identity.md.`,
		Example: `  starling token keygen --out keys
  starling token --key keys/signing.pem --subject phone-7 --scope report --vehicle car-7
  starling token --key keys/signing.pem --subject map --scope dispatch --valid 8h > map.token
  starling nearest --at 48.2,16.37 --token-file map.token`,
		Args: usageArgs(cobra.NoArgs),
	}
	flags := cmd.Flags()
	keyFile := flags.String("key", "", "Private key to sign with (PEM, Ed25519 or RSA).")
	secretFile := flags.String("dev-secret-file", "", "Secret to sign a development token with (HS256), as auth.dev_secret_file.")
	var t mint.Token
	flags.StringVar(&t.Issuer, "issuer", devIssuer, "Claim iss; auth.issuer of the servers.")
	flags.StringVar(&t.Audience, "audience", auth.DefaultConfig().Audience, "Claim aud; auth.audience of the servers.")
	flags.StringVar(&t.Subject, "subject", "", "Claim sub: who it is for.")
	flags.StringVar(&t.Scope, "scope", "", "What it permits: of report, dispatch, rider, vehicle:read, operate, metrics, service; several with spaces between them.")
	flags.StringVar(&t.Vehicle, "vehicle", "", "The vehicle that it is for: an id, or a pattern with one *.")
	valid := flags.Duration("valid", time.Hour, "How long it is valid.")
	cmd.RunE = func(*cobra.Command, []string) error {
		if err := checkToken(&t, *valid); err != nil {
			return usage(err)
		}
		key, err := signingKey(*keyFile, *secretFile)
		if err != nil {
			return usage(err)
		}
		t.From, t.Until = time.Now().Add(-time.Minute), time.Now().Add(*valid)
		token, err := key.Sign(t)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(world.Out, token)
		return err
	}
	cmd.AddCommand(newKeygen(world), newCerts(world), newDeployment(world))
	return cmd
}

// devIssuer is who has issued tokens for development.
const devIssuer = "starling-dev"

func checkToken(t *mint.Token, valid time.Duration) error {
	if t.Subject == "" {
		return errors.New("--subject is missing: who is the token for?")
	}
	if t.Scope == "" {
		return errors.New("--scope is missing: what does the token permit?")
	}
	for _, name := range strings.Fields(t.Scope) {
		if _, known := auth.ParseScope(name); !known {
			return fmt.Errorf("--scope has %q: must be of report, dispatch, rider, vehicle:read, operate, metrics, service", name)
		}
	}
	if !auth.ValidSubject(t.Subject) {
		return fmt.Errorf("--subject is %q: %s", t.Subject, auth.SubjectRule)
	}
	if t.Vehicle != "" && !auth.ValidVehicle(t.Vehicle) {
		return fmt.Errorf("--vehicle is %q: %s", t.Vehicle, auth.VehicleRule)
	}
	if valid <= 0 {
		return fmt.Errorf("--valid is %s: must be positive", valid)
	}
	return nil
}

func signingKey(keyFile, secretFile string) (*mint.Key, error) {
	if (keyFile == "") == (secretFile == "") {
		return nil, errors.New("one of --key and --dev-secret-file is needed (`starling token keygen` makes a key)")
	}
	if secretFile != "" {
		secret, err := os.ReadFile(secretFile)
		if err != nil {
			return nil, err
		}
		return mint.NewKey([]byte(strings.TrimSpace(string(secret))))
	}
	data, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	key, err := mint.ParseKey(data)
	if err != nil {
		return nil, fmt.Errorf("--key %s: %w", keyFile, err)
	}
	return key, nil
}

func newKeygen(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keygen",
		Short: "Make a key to sign tokens with, and what the servers need",
		Long: `Make an Ed25519 key to sign tokens with (signing.pem, keep it from the servers),
its public half (keys.pem, or keys.json as a JWKS, for auth.keys_file) and a secret
that binds page tokens to their callers (page.key, for auth.page_key_file). Files
that are there are not overwritten.`,
		Example: "  starling token keygen --out keys",
		Args:    usageArgs(cobra.NoArgs),
	}
	dir := cmd.Flags().String("out", "keys", "Directory for the files.")
	cmd.RunE = func(*cobra.Command, []string) error {
		_, secret, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		files, err := keyFiles(secret)
		if err != nil {
			return err
		}
		return writeNew(world, *dir, files)
	}
	return cmd
}

// newFile is a file to be written.
type newFile struct {
	name string
	data []byte
	mode os.FileMode
}

const (
	secretMode = 0o600
	publicMode = 0o644
)

func keyFiles(secret ed25519.PrivateKey) ([]newFile, error) {
	private, err := mint.Private(secret)
	if err != nil {
		return nil, err
	}
	public, err := mint.Public(secret)
	if err != nil {
		return nil, err
	}
	set, err := jwks(secret)
	if err != nil {
		return nil, err
	}
	page := make([]byte, 32)
	_, _ = rand.Read(page) // never fails
	return []newFile{
		{"signing.pem", private, secretMode}, {"keys.pem", public, publicMode}, {"keys.json", set, publicMode},
		{"page.key", []byte(base64.RawStdEncoding.EncodeToString(page) + "\n"), secretMode},
	}, nil
}

// jwks is an Ed25519 key's public half as a JWKS.
func jwks(secret crypto.Signer) ([]byte, error) {
	public := secret.Public().(ed25519.PublicKey)
	id, err := auth.Thumbprint(public)
	if err != nil {
		return nil, err
	}
	set := map[string]any{"keys": []map[string]string{{
		"kty": "OKP", "crv": "Ed25519", "x": base64.RawURLEncoding.EncodeToString(public), "kid": id, "alg": "EdDSA", "use": "sig",
	}}}
	out, err := json.MarshalIndent(set, "", "  ")
	return append(out, '\n'), err
}

func newCerts(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "certs",
		Short: "Make an authority and a certificate for servers and clients inside",
		Long: `Make an authority of its own (ca.pem, whose key is not kept) and a certificate by it
(cert.pem, key.pem) for the hosts given, for tls.cert_file, tls.key_file, tls.ca_file
and tls.client_ca_file. Files that are there are not overwritten. For development
and closed networks: a server on the internet has a certificate of a public
authority.`,
		Example: "  starling token certs --out tls --host localhost,127.0.0.1,matcher",
		Args:    usageArgs(cobra.NoArgs),
	}
	dir := cmd.Flags().String("out", "tls", "Directory for the files.")
	hosts := cmd.Flags().StringSlice("host", []string{"localhost", "127.0.0.1", "::1"}, "Host names and addresses of the servers.")
	valid := cmd.Flags().Duration("valid", 90*24*time.Hour, "How long the certificate is valid.")
	cmd.RunE = func(*cobra.Command, []string) error {
		if *valid <= 0 || len(*hosts) == 0 {
			return usage(errors.New("--valid must be positive, and --host not empty"))
		}
		files, err := certFiles(*hosts, *valid)
		if err != nil {
			return err
		}
		return writeNew(world, *dir, files)
	}
	return cmd
}

func certFiles(hosts []string, valid time.Duration) ([]newFile, error) {
	authority, err := mint.NewAuthority("starling development authority", time.Now().Add(valid))
	if err != nil {
		return nil, err
	}
	cert, key, err := authority.Certificate(hosts[0], hosts)
	if err != nil {
		return nil, err
	}
	return []newFile{{"ca.pem", authority.PEM, publicMode}, {"cert.pem", cert, publicMode}, {"key.pem", key, secretMode}}, nil
}

func newDeployment(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "deployment",
		Short: "Make all that the processes of a first deployment share",
		Long: `Make the files of keygen and certs, keys for the names of rides (names.key, for
rides.name_keys_file), and tokens by the key: service.token, with which the processes
ask each other, dispatch.token for a dispatcher and report.token for a simulated fleet
(vehicles sim-*). All of them or none: the directory appears when it is whole, and one
that is there is left as it is, so that the command may be the first step of every
start. For development and closed networks, as certs is.`,
		Example: "  starling token deployment --out secrets --host localhost,ingest,matcher",
		Args:    usageArgs(cobra.NoArgs),
	}
	dir := cmd.Flags().String("out", "secrets", "Directory for the files, which must not be there yet.")
	hosts := cmd.Flags().StringSlice("host", []string{"localhost", "127.0.0.1", "::1"}, "Host names and addresses of the servers.")
	valid := cmd.Flags().Duration("valid", 90*24*time.Hour, "How long the certificate and the tokens are valid.")
	cmd.RunE = func(*cobra.Command, []string) error {
		if *valid <= 0 || len(*hosts) == 0 {
			return usage(errors.New("--valid must be positive, and --host not empty"))
		}
		if _, err := os.Lstat(*dir); err == nil {
			_, err = fmt.Fprintf(world.Out, "%s is there already\n", *dir)
			return err
		}
		files, err := deploymentFiles(*hosts, *valid)
		if err != nil {
			return err
		}
		making, err := os.MkdirTemp(filepath.Dir(filepath.Clean(*dir)), ".making-")
		if err != nil {
			return err
		}
		if err := writeNew(IO{Out: io.Discard}, making, files); err != nil {
			return errors.Join(err, os.RemoveAll(making))
		}
		// A crash before this leaves a directory .making-* that nobody reads.
		if err := os.Rename(making, *dir); err != nil {
			return errors.Join(err, os.RemoveAll(making))
		}
		_, err = fmt.Fprintln(world.Out, *dir)
		return err
	}
	return cmd
}

func deploymentFiles(hosts []string, valid time.Duration) ([]newFile, error) {
	_, secret, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	files, err := keyFiles(secret)
	if err != nil {
		return nil, err
	}
	certs, err := certFiles(hosts, valid)
	if err != nil {
		return nil, err
	}
	names := make([]byte, 32)
	_, _ = rand.Read(names) // never fails
	files = append(append(files, certs...), newFile{"names.key", []byte(hex.EncodeToString(names) + "\n"), secretMode})
	key, err := mint.NewKey(secret)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	for _, t := range []mint.Token{
		{Subject: "service", Scope: "service"}, {Subject: "dispatch", Scope: "dispatch"}, {Subject: "simulator", Scope: "report", Vehicle: "sim-*"},
		{Subject: "prometheus", Scope: "metrics"},
	} {
		t.Issuer, t.Audience, t.From, t.Until = devIssuer, auth.DefaultConfig().Audience, now.Add(-time.Minute), now.Add(valid)
		token, err := key.Sign(t)
		if err != nil {
			return nil, err
		}
		files = append(files, newFile{t.Scope + ".token", []byte(token + "\n"), secretMode})
	}
	return files, nil
}

// writeNew writes files that must not be there yet.
func writeNew(world IO, dir string, files []newFile) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if _, err := os.Lstat(path); err == nil {
			return usage(fmt.Errorf("%s is there already, and is not overwritten", path))
		}
	}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.mode)
		if err != nil {
			return err
		}
		_, err = out.Write(f.data)
		if err := errors.Join(err, out.Close()); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(world.Out, path); err != nil {
			return err
		}
	}
	return nil
}

// accessFlags are those by which the commands that ask a server prove who they
// are.
func accessFlags(root *cobra.Command, environ []string) {
	flags := root.PersistentFlags()
	flags.String("token-file", lookupEnv(environ, "STARLING_TOKEN_FILE"), "File with a token for the servers that a command asks; read again for each call. Also STARLING_TOKEN_FILE.")
	flags.String("server-ca-file", lookupEnv(environ, "STARLING_SERVER_CA_FILE"), "`File` with the authorities (PEM) by which to believe those servers; the word system means the machine's. Without it connections have no TLS. Also STARLING_SERVER_CA_FILE.")
}

// access returns how a command connects to servers.
func access(cmd *cobra.Command) (client.DialOptions, error) {
	var o client.DialOptions
	tokenFile, caFile := cmd.Flag("token-file").Value.String(), cmd.Flag("server-ca-file").Value.String()
	if tokenFile != "" {
		o.Token = func(context.Context) (string, error) {
			token, err := os.ReadFile(tokenFile)
			return strings.TrimSpace(string(token)), err
		}
		if _, err := o.Token(cmd.Context()); err != nil {
			return o, usage(fmt.Errorf("--token-file: %w", err))
		}
	}
	if caFile == "" {
		o.Extra = []grpc.DialOption{grpc.WithContextDialer(dialPlain)}
		return o, nil
	}
	o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "system" {
		return o, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return o, usage(fmt.Errorf("--server-ca-file: %w", err))
	}
	o.TLS.RootCAs = x509.NewCertPool()
	if !o.TLS.RootCAs.AppendCertsFromPEM(pem) {
		return o, usage(errors.New("--server-ca-file " + caFile + " has no certificate"))
	}
	return o, nil
}

// connect opens a connection to a role's gRPC server as the command's flags have
// it.
func connect(cmd *cobra.Command, addr string) (*grpc.ClientConn, error) {
	o, err := access(cmd)
	if err != nil {
		return nil, err
	}
	conn, err := client.Dial(addr, o)
	if err != nil {
		return nil, usage(err)
	}
	return conn, nil
}
