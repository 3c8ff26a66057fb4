#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time (30s) or number of inputs
# (2000x): as many targets at once as there are CPUs, each with one worker. A
# package's targets share one instrumented binary.
set -euo pipefail
cd "$(dirname "$0")/.."
export time=${1:-20s}
export built cache
built=$(mktemp -d)
cache=$(go env GOCACHE)/fuzz
trap 'rm -rf "$built"' EXIT

fuzz() { # fuzz PACKAGE TARGET: its output comes as one piece
  local code=0 began=$SECONDS out
  out=$(cd "$1" && "$built/$1/test" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "$time" \
    -test.fuzzminimizetime 10s -test.parallel 1 -test.fuzzcachedir "$cache/$(go list)" 2>&1) || code=$?
  echo "== $2 in $1 for $time: $((SECONDS - began)) s"
  echo "$out"
  return $code
}
export -f fuzz

targets=$(grep -rnoE --include='*_test.go' '^func (Fuzz[A-Za-z0-9_]+)' . | sed -E 's#^\./(.*)/[^/]+:[0-9]+:func #\1 #' | sort)
[ -n "$targets" ] || { echo "no fuzz target found" >&2; exit 1; }
for package in $(cut -d' ' -f1 <<<"$targets" | uniq); do
  mkdir -p "$built/$package"
  # Vetted by make test.
  go test -c -fuzz . -vet=off -o "$built/$package/test" "./$package"
done
xargs -P "$(nproc)" -L 1 bash -c 'fuzz "$@"' fuzz <<<"$targets"
