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
