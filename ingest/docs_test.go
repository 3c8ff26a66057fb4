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
checked in this order, and the first that is broken is named. The device would be
refused again with the same fix, so there is nothing to send again.

A value that the device does not know is left out. An accuracy, speed or heading of
exactly -1, which iOS uses for "unknown", is left out by the server and counted in
` + "`starling_ingest_fields_absent_total`" + ` by field; the fix is kept. A phone must not
send 0 for "unknown". ` + "`mocked: false`" + ` means the same as its absence.

A heading travels as a 32-bit float, in which 359.99999 becomes 360. The JSON gateway
takes every number below 360 and sends 0 for those; a gRPC client that narrows a
64-bit heading does the same. A heading of 360 is refused.

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
The bounds of the device time are inclusive. A fix that waited in the phone for longer
than the bound is refused; the default suits a phone that was out of reach for weeks.

### The server's clock

The bounds of the device time follow the server's clock and, as long as the two differ
by at most ` + "`clock_tolerance`" + ` (30 s), the log's: a fix is refused only when it breaks
the rule by both. ` + "`max_ahead`" + ` is the same bound as ` + "`tracker.max_ahead`" + `; a
configuration in which they differ is refused.

A refusal that may be the server's own fault is never acknowledged. The server compares
its clock with the append times that the log stamps (of a new record every 10 s; the
median of the last 9 counts) and with the clocks of the last vehicles that reported (at
most 512; the newest fix of each report counts). Evidence counts for 10 minutes by a
clock that nobody can set.

- The clock is **in doubt** when the log contradicts it by more than ` + "`clock_tolerance`" + `,
  unless two vehicles or more confirm it; or when at least two vehicles share a clock
  (within ` + "`max_ahead`" + ` of one another) that is ahead by more than ` + "`max_ahead`" + ` or behind
  by more than ` + "`max_age`" + `, and they are more than those that confirm it.
- In doubt, a report with a fix that breaks a rule of time is not taken: its stream or
  call ends with ` + "`UNAVAILABLE`" + ` and ` + "`CLOCK_IN_DOUBT`" + `, and the client sends it again.
  ` + "`/readyz`" + ` fails, ` + "`starling_ingest_clock_in_doubt`" + ` is 1, the log warns once a minute.
- While no append time has been seen, a fix that is too far ahead is also kept back when
  no vehicle confirms the server's clock. One vehicle with a wrong clock among honest ones,
  or on a server whose log confirms its clock, is refused as usual.

Where this ends: when an empty local log was opened while the clock was wrong already,
only the vehicles contradict it, and that takes two.

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
	fmt.Fprintf(&b, "| `vehicle_id` | It is the vehicle of the caller's token, or matches its pattern; else `PERMISSION_DENIED` ([identity.md](identity.md)) | - | - | `%s` |\n", rejectedVehicle)
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
