package redisconn

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestValidateNamesFieldAndRule(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
	for rule, set := range map[string]func(*Config){
		`positions is true: must be set with addrs`:       func(c *Config) { c.Addrs, c.Positions = nil, true },
		`positions_keep is 10ms: must be between 10s and`: func(c *Config) { c.PositionsKeep = 10 * time.Millisecond },
		`positions_max_vehicles is 0: must be between 1`:  func(c *Config) { c.PositionsMaxVehicles = 0 },
		`must be not empty in a cluster with positions`:   func(c *Config) { c.Positions, c.Cluster, c.Prefix = true, true, "" },
		`addrs is "nowhere": must be host:port`:           func(c *Config) { c.Addrs = []string{"nowhere"} },
	} {
		c := DefaultConfig()
		c.Addrs = []string{"127.0.0.1:6379"}
		require.NoError(t, c.Validate())
		set(&c)
		require.ErrorContains(t, c.Validate(), rule)
	}
}
