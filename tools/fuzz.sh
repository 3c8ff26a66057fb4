#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other, for the given time
# (30s) or number of inputs (2000x).
set -euo pipefail
time=${1:-20s}
cd "$(dirname "$0")/.."
found=0
while IFS=: read -r file target; do
  found=$((found + 1))
  echo "== $target in $(dirname "$file") for $time"
  go test "./$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "$time"
done < <(grep -rnoE --include='*_test.go' '^func (Fuzz[A-Za-z0-9_]+)' . | sed -E 's#^\./([^:]+):[0-9]+:func #\1:#')
[ "$found" -gt 0 ] || { echo "no fuzz target found" >&2; exit 1; }
