package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The packages that tools/test.sh tests without the race detector start no
// goroutines, nor do their tests.
func TestWhatIsTestedWithoutTheRaceDetectorHasNoGoroutines(t *testing.T) {
	script, err := os.ReadFile("../../tools/test.sh")
	require.NoError(t, err)
	line := regexp.MustCompile(`(?m)^sequential="(.+)"$`).FindSubmatch(script)
	require.NotNil(t, line)
	for _, folder := range strings.Fields(string(line[1])) {
		files, err := filepath.Glob(filepath.Join("../..", folder, "*.go"))
		require.NoError(t, err)
		require.NotEmpty(t, files, folder)
		for _, name := range files {
			if strings.HasSuffix(name, "_bench_test.go") {
				continue // has benchmarks alone
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			require.NoError(t, err)
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("%s has a go statement", name)
				case *ast.SelectorExpr:
					if n.Sel.Name == "Go" || n.Sel.Name == "Parallel" || n.Sel.Name == "RunParallel" {
						t.Errorf("%s calls %s", name, n.Sel.Name)
					}
				}
				return true
			})
		}
	}
}
