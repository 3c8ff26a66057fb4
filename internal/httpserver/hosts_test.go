package httpserver_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/httpserver"
)

// A request under a name that is nobody's is refused, whatever it resolves to.
func TestKnownHosts(t *testing.T) {
	h := httpserver.KnownHosts(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), []string{"starling-admin.fleet.svc"})
	for host, want := range map[string]int{
		"127.0.0.1:7602": 200, "127.0.0.1": 200, "[::1]:7602": 200, "[::1]": 200, "10.1.2.3:7602": 200,
		"localhost:7602": 200, "LOCALHOST": 200, "starling-admin.fleet.svc": 200, "Starling-Admin.fleet.svc:7602": 200,
		"": 421, "evil.example": 421, "evil.example:7602": 421, "localhost.evil.example": 421, "127.0.0.1.evil.example:7602": 421, "x:y:z": 421,
	} {
		r := httptest.NewRequest(http.MethodGet, "/config", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, want, w.Code, "%q", host)
	}
}

// In development mode nothing but this machine's loopback is a Host.
func TestLoopbackHost(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1:7603": true, "127.8.9.1": true, "[::1]:7603": true, "[::1]": true, "localhost:7603": true, "LocalHost": true, "[::ffff:127.0.0.1]:7603": true,
		"": false, "10.1.2.3:7603": false, "0.0.0.0:7603": false, "evil.example:7603": false, "localhost.evil.example": false, "127.0.0.1.evil.example": false, "[::2]": false,
	} {
		require.Equal(t, want, httpserver.LoopbackHost(host), "%q", host)
	}
}
