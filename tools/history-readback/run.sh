#!/usr/bin/env bash
# Writes a lake of history by `starling up` and an hour of a simulated fleet, and has
# DuckDB, pyarrow, GeoPandas, MovingPandas and a validator of GeoParquet read it.
# The Python packages are pinned and installed outside the repository.
set -euo pipefail
cd "$(dirname "$0")/../.."
starling=${STARLING:-bin/starling}
env=${XDG_CACHE_HOME:-$HOME/.cache}/starling/history-readback-$(sha256sum tools/history-readback/requirements.txt | cut -c1-12)
if [ ! -e "$env/ready" ]; then
  python3 -m venv "$env"
  "$env/bin/pip" install -q --disable-pip-version-check -r tools/history-readback/requirements.txt
  touch "$env/ready"
fi

work=$(mktemp -d)
pid=
cleanup() { [ -z "$pid" ] || kill "$pid" 2>/dev/null || true; rm -rf "$work"; }
trap cleanup EXIT

"$starling" up --dev --local-directory "$work/log" --history-lake-dir "$work/lake" --history-batch-interval 2s \
  --server-ingest-listen 127.0.0.1:0 --server-matcher-listen 127.0.0.1:0 --server-history-listen 127.0.0.1:0 --server-json-listen "" --server-admin-listen 127.0.0.1:0 \
  2>"$work/up.log" &
pid=$!
address=
for _ in $(seq 600); do
  address=$(grep -o 'ingest=127.0.0.1:[0-9]*' "$work/up.log" | head -n1 | cut -d= -f2 || true)
  [ -z "$address" ] || break
  kill -0 "$pid" 2>/dev/null || { cat "$work/up.log" >&2; exit 1; }
  sleep 0.1
done
"$starling" simulate --ingest "$address" --vehicles 40 --duration 1h --flat-out --quiet --json >"$work/sent.json"
kill -TERM "$pid" # history writes what it has gathered before the process ends
wait "$pid"
pid=
"$env/bin/python" tools/history-readback/readback.py "$work/lake" docs/history.md "$work/sent.json" "$starling"
