package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/internal/config"
)

// printedCommand is a line of a block of a document that calls the binary.
var printedCommand = regexp.MustCompile(`^(?:bin/)?starling ([^#<>|&]*)`)

// printed returns the command lines in the blocks of a document.
func printed(t *testing.T, path string) (lines [][]string) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	inBlock := false
	joined := strings.ReplaceAll(string(text), "\\\n", " ")
	for line := range strings.Lines(joined) {
		if strings.HasPrefix(line, "```") {
			inBlock = !inBlock
			continue
		}
		if found := printedCommand.FindStringSubmatch(line); inBlock && found != nil {
			lines = append(lines, strings.Fields(strings.ReplaceAll(found[1], "'", "")))
		}
	}
	return lines
}

// parse finds the command of a line and checks its flags and arguments, without
// running it.
func parse(t *testing.T, args []string) *cobra.Command {
	t.Helper()
	cmd, rest, err := newRoot(IO{}).Find(args)
	require.NoError(t, err, "%v", args)
	cmd.InitDefaultHelpFlag()
	require.NoError(t, cmd.ParseFlags(rest), "%v", args)
	if help, _ := cmd.Flags().GetBool("help"); !help {
		require.NoError(t, cmd.ValidateArgs(cmd.Flags().Args()), "%v", args)
	}
	return cmd
}

// Every command that a document prints is one of this binary, with flags and
// arguments that it has.
func TestDocsPrintCommandsThatExist(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	docs, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	require.NoError(t, err)
	found := 0
	for _, path := range append(docs, filepath.Join(root, "README.md"), filepath.Join(root, "loadtest", "README.md")) {
		for _, args := range printed(t, path) {
			t.Run(filepath.Base(path)+" "+strings.Join(args, " "), func(t *testing.T) { parse(t, args) })
			found++
		}
	}
	require.Greater(t, found, 40, "else the documents are not understood")
}

// The roles of the documents' blocks can run side by side on one host: no two open
// the same address. Where a role stands again, those before are stopped first.
func TestDocsRolesHaveAddressesOfTheirOwn(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	for _, path := range []string{"README.md", filepath.Join("docs", "first-hour.md")} {
		opened, started, roles := map[string]string{}, map[string]bool{}, 0
		for _, args := range printed(t, filepath.Join(root, path)) {
			cmd := parse(t, args)
			name := cmd.Name()
			if name != "ingest" && name != "tracker" && name != "matcher" {
				continue
			}
			if started[name] {
				clear(opened)
				clear(started)
			}
			started[name] = true
			roles++
			cfg := app.DefaultConfig()
			require.NoError(t, config.Load(&cfg, config.Sources{Flags: cmd.Flags()}))
			addresses := []string{cfg.Server.AdminListen}
			switch name {
			case "ingest":
				addresses = append(addresses, cfg.Server.IngestListen, cfg.Server.JSONListen)
			case "matcher":
				addresses = append(addresses, cfg.Server.MatcherListen, cfg.Server.JSONListen)
			}
			for _, addr := range addresses {
				require.Empty(t, opened[addr], "%s: %s and %s both open %s", path, opened[addr], name, addr)
				opened[addr] = name
			}
		}
		require.Positive(t, roles, path)
		require.Zero(t, roles%3, path)
	}
}
