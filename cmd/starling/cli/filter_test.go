package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFilterEvaluatesTheFixesOfItsInput(t *testing.T) {
	var fixes, truth strings.Builder
	fixes.WriteString("vehicle_id,unix_ms,lat,lon\n")
	truth.WriteString("unix_ms,lat,lon\n")
	for i := range 120 {
		row := fmt.Sprintf("%d,%.7f,11\n", (i+1)*1000, 48+float64(i)*1e-4)
		fixes.WriteString("v," + row)
		truth.WriteString(row)
	}
	path := filepath.Join(t.TempDir(), "truth.csv")
	require.NoError(t, os.WriteFile(path, []byte(truth.String()), 0o600))
	out := runCLI(t, context.Background(), fixes.String(), "filter", "--eval", path)
	require.Zero(t, out.code, out.err)
	require.Contains(t, out.out, "display path to truth")
	require.Contains(t, out.out, "stdin", "the stream's own figures are there")

	out = runCLI(t, context.Background(), "vehicle_id,unix_ms,lat\n", "filter", "--eval", path)
	require.NotZero(t, out.code)
	require.Contains(t, out.err, `fixes of stdin: no column "lon"`)
}
