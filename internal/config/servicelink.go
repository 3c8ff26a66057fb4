package config

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Kubernetes sets variables for every service of a pod's namespace, by the
// service's name: for one that is called starling, or starling-ingest, they begin
// as our settings do.
//
//	STARLING_SERVICE_HOST=10.0.0.11         STARLING_PORT=tcp://10.0.0.11:7600
//	STARLING_SERVICE_PORT=7600              STARLING_PORT_7600_TCP=tcp://10.0.0.11:7600
//	STARLING_SERVICE_PORT_GRPC=7600         STARLING_PORT_7600_TCP_PROTO=tcp, _PORT=7600, _ADDR=10.0.0.11
//
// No setting ends as these do, so a name alone could decide; the value is held to
// its form as well, so that STARLING_SERVER_PORT=7600, which somebody has made up,
// is still an error.
var serviceLinks = []struct {
	name  *regexp.Regexp
	value func(string) bool
}{
	{regexp.MustCompile(`_SERVICE_HOST$`), isAddress},
	{regexp.MustCompile(`_SERVICE_PORT(_[A-Z0-9_]+)?$`), isPort},
	{regexp.MustCompile(`_PORT$`), isURL},
	{regexp.MustCompile(`_PORT_\d+_(TCP|UDP|SCTP)$`), isURL},
	{regexp.MustCompile(`_PORT_\d+_(TCP|UDP|SCTP)_PROTO$`), isProtocol},
	{regexp.MustCompile(`_PORT_\d+_(TCP|UDP|SCTP)_PORT$`), isPort},
	{regexp.MustCompile(`_PORT_\d+_(TCP|UDP|SCTP)_ADDR$`), isAddress},
}

// serviceLink reports whether a variable that is no setting is one of those.
func serviceLink(name, value string) bool {
	name = "_" + strings.TrimPrefix(name, EnvPrefix)
	for _, link := range serviceLinks {
		if link.name.MatchString(name) && link.value(value) {
			return true
		}
	}
	return false
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

func isProtocol(s string) bool { return s == "tcp" || s == "udp" || s == "sctp" }

// isURL wants a protocol, an address (IPv6 may lack its brackets) and a port.
func isURL(s string) bool {
	protocol, rest, ok := strings.Cut(s, "://")
	colon := strings.LastIndexByte(rest, ':')
	if !ok || colon < 0 || !isProtocol(protocol) {
		return false
	}
	return isAddress(strings.Trim(rest[:colon], "[]")) && isPort(rest[colon+1:])
}
