#!/usr/bin/env bash
# Draws docs/history-heatmap.png and docs/history-track.svg: recorded buses and a
# recorded drive go through `starling up` into a lake, from which they are drawn.
# Sources and licences are in NOTICE.
set -euo pipefail
cd "$(dirname "$0")/../.."
starling=${STARLING:-bin/starling}
data=${STARLING_DATA:-../shared/data}
work=$(mktemp -d)
pid=
cleanup() { [ -z "$pid" ] || kill "$pid" 2>/dev/null || true; rm -rf "$work"; }
trap cleanup EXIT

"$starling" up --dev --partitions 4 --local-directory "$work/log" --history-lake-dir "$work/lake" --history-batch-interval 5s --ingest-validation-max-age 150000h \
  --server-ingest-listen 127.0.0.1:0 --server-matcher-listen 127.0.0.1:0 --server-history-listen 127.0.0.1:0 --server-json-listen "" --server-admin-listen 127.0.0.1:0 \
  2>"$work/up.log" &
pid=$!
address() { grep -o " $1=127.0.0.1:[0-9]*" "$work/up.log" | head -n1 | cut -d= -f2 || true; }
for _ in $(seq 600); do
  [ -z "$(address ingest)" ] || break
  kill -0 "$pid" 2>/dev/null || { cat "$work/up.log" >&2; exit 1; }
  sleep 0.1
done
"$starling" replay --ingest "$(address ingest)" --matcher "$(address matcher)" --as-recorded --quiet "$data/fleet/capmetro.csv.gz" "$data/truth/ppc_rtkref_tokyo_run2.csv.gz"
# History is behind what is sent; the drive is the newest of it.
drive() { "$starling" track ppc_tokyo_run2 --history "$(address history)" --from 2024-07-23T01:10:00Z --to 2024-07-23T01:13:00Z "$@"; }
until [ "$(drive --format csv | wc -l)" = 901 ]; do sleep 1; done
"$starling" heatmap --history "$(address history)" --value fixes --period minute --from 2015-03-01T00:00:00Z --to 2015-04-01T00:00:00Z --width 900 --out docs/history-heatmap.png
drive --format svg >docs/history-track.svg
