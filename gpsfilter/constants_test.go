package gpsfilter_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Numbers stand in constants.go. Elsewhere there are 0, 1 and 2, which are
// structure. config.go has the settings, golden.go an input, and gpsfilter.go the
// numbers of verdicts, which are part of the encoding.
func TestNumbersStandInTheTable(t *testing.T) {
	exempt := map[string]bool{"constants.go": true, "config.go": true, "golden.go": true, "gpsfilter.go": true}
	structure := map[string]bool{"0": true, "1": true, "2": true, "0.0": true, "1.0": true}
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	parsed := 0
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || exempt[name] {
			continue
		}
		parsed++
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if ok && (lit.Kind == token.INT || lit.Kind == token.FLOAT) {
				require.True(t, structure[lit.Value], "%s: %s belongs into constants.go", fset.Position(lit.Pos()), lit.Value)
			}
			return true
		})
	}
	require.Greater(t, parsed, 8)
}

func TestConstantsSayWhatTheyAre(t *testing.T) {
	f := newFilter(t)
	sources := map[string]bool{"fitted": true, "physical": true, "paper": true, "numerical": true}
	for _, c := range f.Constants() {
		require.NotEmpty(t, c.Unit, c.Name)
		require.NotEmpty(t, c.Meaning, c.Name)
		require.True(t, sources[c.Source], "%s: %q", c.Name, c.Source)
		require.Positive(t, c.Value, c.Name)
	}
	g, err := f.With("Gate", 7)
	require.NoError(t, err)
	require.NotEqual(t, f.GoldenDigest(), g.GoldenDigest())
	_, err = f.With("NoSuch", 7)
	require.ErrorContains(t, err, "NoSuch")
}
