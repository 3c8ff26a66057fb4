package app

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/config"
)

// No setting's variable may look like one that Kubernetes sets for a service.
func TestNoSettingIsNamedLikeAServiceLink(t *testing.T) {
	link := regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT.*|PORT|PORT_\d+_.*)$`)
	cfg := DefaultConfig()
	for _, s := range config.Settings(&cfg) {
		require.NotRegexp(t, link, s.Env())
	}
}
