package ingest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write docs/validation.md anew")

// TestValidationDocs keeps docs/validation.md what the tables of rules say.
func TestValidationDocs(t *testing.T) {
	path := filepath.Join("..", "docs", "validation.md")
	want := validationDocs()
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(want), 0o644))
	}
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, string(got), "docs/validation.md is stale: go test ./ingest -run ValidationDocs -update")
}

func validationDocs() string {
	var b strings.Builder
	cfg := DefaultConfig()
	b.WriteString(`# Validation

<!-- Generated from the tables in ingest/validate.go and ingest/report_rules.go:
     go test ./ingest -run ValidationDocs -update -->

A report is checked twice: as a whole, and fix by fix.

Settings are those of the section ` + "`ingest.validation`" + `. As a flag, ` + "`max_ahead`" + ` is
` + "`--ingest-validation-max-ahead`" + `, in the environment ` + "`STARLING_INGEST_VALIDATION_MAX_AHEAD`" + `.

## Fixes

A fix that breaks a rule is refused. The report's other fixes are kept, and the
acknowledgement names the refused one with its index, field and reason. Rules are
checked in this order, and the first that is broken is told. The device would be
refused again with the same fix, so there is nothing to send again.

A value that the device does not know is left out, not sent as -1 or 0: iOS, for
one, uses a negative speed or course for "unknown".

Each refusal is counted in ` + "`starling_ingest_fixes_refused_total`" + ` under its reason.

| reason | field | rule | default bound | setting | metric label |
|---|---|---|---|---|---|
`)
	for _, rule := range append(fixRules[:len(fixRules):len(fixRules)], timeRepeated) {
		bound := "-"
		if rule.bound != nil {
			bound = rule.bound(&cfg.Validation)
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s | %s | `%s` |\n", strings.TrimPrefix(rule.reason.String(), "REFUSAL_REASON_"),
			rule.field, rule.rule, bound, settings(rule.setting), reasonLabel(rule.reason))
	}
	b.WriteString(`
The bounds of the device time are inclusive and follow the server's clock. A fix
that waited in the phone for longer than the bound is refused; the default leaves
room for a phone that was out of reach for weeks.

## Reports

A report that breaks a rule as a whole is not stored. It ends its stream, or its
unary call, with ` + "`INVALID_ARGUMENT`" + `; the reports before it on the stream are
acknowledged first. The status carries ` + "`google.rpc.BadRequest`" + ` with every rule that
is broken, and ` + "`google.rpc.ErrorInfo`" + ` with the reason ` + "`INVALID_REPORT`" + ` and the
report's place on the stream as ` + "`report_number`" + `. Sending it again cannot help.

Each is counted in ` + "`starling_ingest_reports_rejected_total`" + ` under its rule.

| field | rule | default bound | setting | metric label |
|---|---|---|---|---|
`)
	for _, rule := range reportRules {
		bound := "-"
		if rule.bound != nil {
			bound = rule.bound(&cfg)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | `%s` |\n", rule.field, rule.rule, bound, settings(rule.setting), rule.name)
	}
	fmt.Fprintf(&b, "| `report` | A StreamReportsRequest in protobuf's binary form | - | - | `%s` |\n", rejectedMalformed)
	fmt.Fprintf(&b, "| `report` | Its encoding is not longer than the bound | %d bytes | `ingest.limits.max_message_bytes` | `%s` |\n",
		cfg.Limits.MaxMessageBytes, rejectedTooLarge)
	b.WriteString(`
A message longer than twice ` + "`max_message_bytes`" + ` is not read at all: gRPC ends the
stream with a ` + "`RESOURCE_EXHAUSTED`" + ` of its own, which carries no details.
`)
	return b.String()
}

func settings(names string) string {
	if names == "" {
		return "-"
	}
	return "`" + strings.ReplaceAll(names, ", ", "`, `") + "`"
}
