package clickhousetest_test

import (
	"errors"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/clickhousetest"
)

func options(s *clickhousetest.Server, protocol clickhouse.Protocol) *clickhouse.Options {
	addr := s.Addr()
	if protocol == clickhouse.HTTP {
		addr = s.HTTPAddr()
	}
	return &clickhouse.Options{Protocol: protocol, Addr: []string{addr}, Auth: clickhouse.Auth{Username: clickhousetest.User, Password: clickhousetest.Password}}
}

func open(t *testing.T, o *clickhouse.Options) clickhouse.Conn {
	t.Helper()
	c, err := clickhouse.Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// What is inserted over one protocol is read over the other, also after a kill.
func TestKeepsItsDataWhenKilled(t *testing.T) {
	s := clickhousetest.Start(t)
	native, overHTTP := open(t, options(s, clickhouse.Native)), open(t, options(s, clickhouse.HTTP))
	require.NoError(t, native.Exec(t.Context(), "CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n"))
	require.NoError(t, native.Exec(t.Context(), "INSERT INTO t SELECT number FROM numbers(1000)"))
	count := func() (n uint64) {
		require.NoError(t, overHTTP.QueryRow(t.Context(), "SELECT count() FROM t").Scan(&n))
		return n
	}
	require.Equal(t, uint64(1000), count())
	used, err := s.CPU()
	require.NoError(t, err)
	require.Positive(t, used)
	s.Kill()
	require.Error(t, open(t, options(s, clickhouse.Native)).Ping(t.Context()))
	require.NoError(t, s.Restart())
	require.Equal(t, uint64(1000), count())
}

func TestAWrongPasswordIsRefused(t *testing.T) {
	s := clickhousetest.Start(t)
	o := options(s, clickhouse.Native)
	o.Auth.Password = "wrong"
	err := open(t, o).Ping(t.Context())
	var refusal *clickhouse.Exception
	require.True(t, errors.As(err, &refusal), "%v", err)
	require.Equal(t, int32(516), refusal.Code)
}
