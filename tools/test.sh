#!/usr/bin/env bash
# Runs go test with the arguments given, and closes with one line: how long it
# took, and which tests this machine lacks the tools for, which skip them.
set -uo pipefail
# A binary with the race detector sleeps for a second at its end, for the reports of
# other threads; those have far less to do.
export GORACE="${GORACE:-atexit_sleep_ms=100}"
"${GO:-go}" test "$@"
code=$?
skipped=()
for tool in java mvn; do
  command -v "$tool" >/dev/null || skipped+=("tests against a real Kafka (no $tool)")
done
command -v redis-server >/dev/null || skipped+=("the comparison with Redis (no redis-server)")
command -v npm >/dev/null || skipped+=("tests against a real ClickHouse (no npm)")
[ -n "${STARLING_DATA:-}" ] || [ -d ../shared/data ] || skipped+=("tests that need recorded drives (STARLING_DATA is not set)")
result=passed
[ $code -eq 0 ] || result=FAILED
text="nothing"
if [ ${#skipped[@]} -gt 0 ]; then
  text=$(printf '; %s' "${skipped[@]}")
  text=${text:2}
fi
echo "make test: $result after $((SECONDS / 60)) min $((SECONDS % 60)) s; skipped: $text"
exit $code
