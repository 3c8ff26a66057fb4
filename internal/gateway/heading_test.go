package gateway_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A heading travels as a 32-bit float, which has no 359.99999: only what was
// sent as 360 is refused.
func TestHeadingsBelow360AreTaken(t *testing.T) {
	p := start(t)
	now := time.Now().UnixMilli()
	for i, c := range []struct {
		json    string
		refused bool
	}{
		{`"headingDeg": 359.9999`, false}, {`"headingDeg": 359.99999`, false}, {`"heading_deg": 359.99999`, false},
		{`"headingDeg": "359.99999"`, false}, {`"headingDeg": 3.5999999e2`, false}, {`"headingDeg": 0`, false},
		{`"headingDeg": -1`, false}, // unknown
		{`"headingDeg": 360`, true}, {`"headingDeg": 360.0`, true}, {`"heading_deg": 3.6e2`, true}, {`"headingDeg": 360.00001`, true}, {`"headingDeg": -0.1`, true},
	} {
		body := fmt.Sprintf(`{"report": {"vehicleId": "edge", "sessionId": "1", "sequence": "%d", "fixes": [
			{"deviceTimeMs": "%d", "latitude": 48.2, "longitude": 16.37},
			{"deviceTimeMs": "%d", "latitude": 48.2, "longitude": 16.37, %s}]}}`, i+1, now+int64(2*i), now+int64(2*i)+1, c.json)
		a := p.do("/v1/reports:send", body)
		require.Equal(t, http.StatusOK, a.status, "%s: %s", c.json, a.body)
		if !c.refused {
			require.Empty(t, at(t, a.object(t), "refusals"), c.json)
			continue
		}
		require.Equal(t, "REFUSAL_REASON_HEADING_INVALID", at(t, a.object(t)["refusals"].([]any)[0].(map[string]any), "reason"), c.json)
	}
}
