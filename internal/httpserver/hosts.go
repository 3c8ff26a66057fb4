package httpserver

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// KnownHosts answers 421 unless a request's Host is an IP address, localhost or
// one of also. A web page whose own name resolves to this server (DNS rebinding)
// sends that name, so it can't have a browser read what the server answers.
func KnownHosts(next http.Handler, also []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !knownHost(r.Host, also) {
			http.Error(w, "this server does not answer under the host name of the request: use its address, or add the name to its settings", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func knownHost(host string, also []string) bool {
	host = withoutPort(host)
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return strings.EqualFold(host, "localhost") || slices.ContainsFunc(also, func(name string) bool { return strings.EqualFold(host, name) })
}

// LoopbackHost reports whether a request's Host is an address of this machine's
// loopback, or localhost.
func LoopbackHost(host string) bool {
	host = withoutPort(host)
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().IsLoopback()
	}
	return strings.EqualFold(host, "localhost")
}

func withoutPort(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}
