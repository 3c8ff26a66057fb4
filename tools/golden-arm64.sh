#!/usr/bin/env bash
# Holds the other architecture to what the step, the filter and the cells are
# pinned to: the golden tests of tracker/step, gpsfilter and internal/h3 are
# cross-built for arm64 and run under qemu, and the compiler's output must have no
# fused multiplication and addition. On an arm64 machine `make test` does as much.
# Needs gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user.
set -euo pipefail
cd "$(dirname "$0")/.."
export CC=aarch64-linux-gnu-gcc CGO_ENABLED=1 GOOS=linux GOARCH=arm64
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT

packages=(internal/h3 gpsfilter tracker/step)
for p in "${packages[@]}"; do
  go build -gcflags=-S "./$p" >"$built/assembly" 2>&1
  grep -q FMULD "$built/assembly" || [ "$p" = tracker/step ] || { echo "$p: no assembly to search" >&2; exit 1; }
  if grep -E '\bFN?M(ADD|SUB)[DS]\b' "$built/assembly"; then
    echo "$p: the compiler has fused a multiplication with an addition: wrap the product in float64()" >&2
    exit 1
  fi
  go test -c -ldflags='-s -w' -o "$built/test" "./$p"
  echo "== $p"
  (cd "$p" && qemu-aarch64 -L /usr/aarch64-linux-gnu "$built/test" -test.v -test.run 'Golden|WhatAVersionComputesIsPinned|TestAtAgreesWithH3Beside|TestSineAndCosine') | tee "$built/out"
  grep -q '^--- PASS' "$built/out" || { echo "$p: no test has run" >&2; exit 1; }
done
