package name_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/rides/name"
)

func key(b byte) []byte { return bytes.Repeat([]byte{b}, name.MinKeyBytes) }

func TestNames(t *testing.T) {
	old, err := name.NewMaker(key(1))
	require.NoError(t, err)
	rotated, err := name.NewMaker(key(2), key(1))
	require.NoError(t, err)
	made := time.UnixMilli(1_790_000_000_123)
	n := old.New(23, "ann", made)
	require.Len(t, n, name.Length)
	parts, err := name.Parse(n)
	require.NoError(t, err)
	require.Equal(t, name.Parts{Partition: 23, Made: made}, parts)
	require.NoError(t, old.Check(n, "ann"))
	require.NoError(t, rotated.Check(n, "ann"), "a key that makes no more names")
	require.ErrorIs(t, old.Check(n, "bob"), name.ErrForged)
	require.ErrorIs(t, old.Check(rotated.New(23, "ann", made), "ann"), name.ErrForged)
	require.NotEqual(t, n, old.New(23, "ann", made))
	for i := range n {
		c := byte('0')
		if n[i] == c {
			c = '1'
		}
		require.Error(t, old.Check(n[:i]+string(c)+n[i+1:], "ann"), "character %d", i)
	}
	for _, bad := range []string{"", "x", n + "0", n[1:], strings.ToUpper(n), strings.Repeat("u", name.Length), strings.Repeat("0", name.Length)} {
		_, err := name.Parse(bad)
		require.ErrorIs(t, err, name.ErrMalformed, bad)
	}
	_, err = name.NewMaker()
	require.Error(t, err)
	_, err = name.NewMaker(key(1)[1:])
	require.Error(t, err)
}
