package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSubcommands(t *testing.T) {
	var out bytes.Buffer
	require.Equal(t, exitUsage, run(t.Context(), nil, &out))
	require.Equal(t, exitUsage, run(t.Context(), []string{"unheard-of"}, &out))
	require.Contains(t, out.String(), `unknown subcommand "unheard-of"`)
	require.Equal(t, exitOK, run(t.Context(), []string{"help"}, &out))
	for _, c := range subcommands() {
		require.Contains(t, out.String(), c.name)
		require.Equal(t, exitOK, run(t.Context(), []string{c.name, "-h"}, &out), c.name)
		require.Equal(t, exitUsage, run(t.Context(), []string{c.name, "-no-such-flag"}, &out), c.name)
	}
}

func TestBadSettingsAreNamed(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"pipeline", "-fixes-per-report", "x"}, "fixes-per-report"},
		{[]string{"pipeline", "-logs", "paper"}, "paper"},
		{[]string{"nearest", "-layouts", "mars"}, "mars"},
		{[]string{"watchers", "-watchers", "0"}, "watchers"},
		{[]string{"generate", "-streams", "0"}, "streams"},
		{[]string{"overload", "-factor", "0"}, "factor"},
		{[]string{"drill", "-log", "paper"}, "paper"},
		{[]string{"soak", "-band", "0"}, "band"},
		{[]string{"recovery", "-what", "nothing"}, "nothing"},
		{[]string{"silence", "-reports", "0"}, "reports"},
		{[]string{"recovery", "-log", "paper"}, "paper"},
		{[]string{serveName, "-kind", "nothing", "-dir", t.TempDir()}, "nothing"},
	} {
		var out bytes.Buffer
		require.NotEqual(t, exitOK, run(t.Context(), c.args, &out), c.args)
		require.Contains(t, out.String(), c.want)
	}
}
