package kafkatest

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
)

// prepare returns the brokers' properties with those for TLS, and a client's
// configuration. Kafka reads PEM as it is: no keystore of Java's has to be made.
func (t *TLS) prepare(dir string, properties map[string]string) (map[string]string, *tls.Config, error) {
	cert, err := os.ReadFile(t.CertFile)
	if err != nil {
		return nil, nil, fmt.Errorf("kafkatest: read the certificate: %w", err)
	}
	key, err := os.ReadFile(t.KeyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("kafkatest: read its key: %w", err)
	}
	ca, err := os.ReadFile(t.CAFile)
	if err != nil {
		return nil, nil, fmt.Errorf("kafkatest: read the authority: %w", err)
	}
	own, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, nil, fmt.Errorf("kafkatest: certificate and key: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, nil, fmt.Errorf("kafkatest: %s has no certificate", t.CAFile)
	}
	store := filepath.Join(dir, "broker.pem") // Kafka wants both in one file
	if err := os.WriteFile(store, append(append(key, '\n'), cert...), 0o600); err != nil {
		return nil, nil, fmt.Errorf("kafkatest: write the brokers' certificate: %w", err)
	}
	all := map[string]string{
		"listener.security.protocol.map": "BROKER:SSL,CONTROLLER:PLAINTEXT",
		"ssl.client.auth":                "required",
		"ssl.keystore.type":              "PEM",
		"ssl.keystore.location":          store,
		"ssl.truststore.type":            "PEM",
		"ssl.truststore.location":        t.CAFile,
	}
	for k, v := range properties {
		all[k] = v
	}
	return all, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{own}}, nil
}
