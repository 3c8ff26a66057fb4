package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// answering are the folders, and single files, whose code runs in the handlers of
// calls. The interceptors turn a panic there into an answer, and the process goes on:
// a lock that the panic has left held would stop it for ever.
var answering = []string{
	"fanout", "ingest", "matcher", "rides", "internal/auth", "internal/budget", "internal/gateway", "internal/httpserver", "internal/latency",
	"internal/rpcserver", "internal/throttle", "internal/locallog/append.go", "internal/locallog/capacity.go",
}

// Each lock is taken by a statement of its own, and the next releases it by defer.
func TestHandlersReleaseLocksByDefer(t *testing.T) {
	looked := 0
	eachSource(t, func(rel, path string) {
		if !slices.ContainsFunc(answering, func(folder string) bool { return within(rel, folder) }) {
			return
		}
		files := token.NewFileSet()
		f, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			var list []ast.Stmt
			switch n := n.(type) {
			case *ast.BlockStmt:
				list = n.List
			case *ast.CaseClause:
				list = n.Body
			case *ast.CommClause:
				list = n.Body
			}
			for i, s := range list {
				expr, ok := s.(*ast.ExprStmt)
				if !ok {
					continue
				}
				lock := called(expr.X)
				if !strings.HasSuffix(lock, ".Lock") && !strings.HasSuffix(lock, ".RLock") {
					continue
				}
				looked++
				release := strings.TrimSuffix(lock, "Lock") + "Unlock"
				if i+1 < len(list) {
					if next, ok := list[i+1].(*ast.DeferStmt); ok && called(next.Call) == release {
						continue
					}
				}
				t.Errorf("%s:%d: %s() is not followed by defer %s()", rel, files.Position(s.Pos()).Line, lock, release)
			}
			return true
		})
	})
	require.Greater(t, looked, 50, "else it looks in the wrong places")
}

// called is what an expression calls without arguments, as a.b.C.
func called(e ast.Expr) string {
	call, ok := e.(*ast.CallExpr)
	if !ok || len(call.Args) > 0 {
		return ""
	}
	var name func(ast.Expr) string
	name = func(e ast.Expr) string {
		switch e := e.(type) {
		case *ast.Ident:
			return e.Name
		case *ast.SelectorExpr:
			return name(e.X) + "." + e.Sel.Name
		}
		return "?"
	}
	return name(call.Fun)
}
