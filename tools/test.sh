#!/usr/bin/env bash
# Runs all tests with the race detector, passing on the flags given, and closes with
# one line: how long it took, and which tests this machine lacks the tools for, which
# skip them.
set -uo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
# Without the race detector, which makes tests several times as long and finds nothing
# here: there are no goroutines, which internal/archtest holds these packages to.
sequential="gpsfilter internal/geo internal/h3 tracker/step tracker/reserve rides/life rides/match rides/match/assign history/row"
alone=$("$go" list $(printf './%s ' $sequential)) || exit 1
all=$("$go" list ./...) || exit 1
# A binary with the race detector sleeps for a second at its end, for the reports of
# other threads; those have far less to do.
export GORACE="${GORACE:-atexit_sleep_ms=100}"
"$go" test -race "$@" $(grep -vxF "$alone" <<<"$all")
code=$?
"$go" test "$@" $alone || code=$?
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
