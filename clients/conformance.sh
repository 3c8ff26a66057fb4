#!/usr/bin/env bash
# Builds the clients and has `starling conformance` judge each: conformance.sh
# [go] [python] [typescript] [typescript-json] [kotlin]. What they need is pinned
# beside them; Python's packages are installed outside the repository.
set -euo pipefail
cd "$(dirname "$0")"
clients=("$@")
[ ${#clients[@]} -gt 0 ] || clients=(go python typescript typescript-json kotlin)
starling=${STARLING:-../bin/starling}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/starling
python=$cache/client-python-$(sha256sum python/requirements.txt | cut -c1-12)

build_go() { (cd .. && "${GO:-go}" build -o bin/deliver ./client/cmd/deliver); }

build_python() {
  if [ ! -e "$python/ready" ]; then
    python3 -m venv "$python"
    "$python/bin/pip" install -q --disable-pip-version-check -r python/requirements.txt
    touch "$python/ready"
  fi
  "$python/bin/python" python/generate.py
  "$python/bin/python" -m unittest discover -q -s python
}

build_typescript() {
  cd typescript
  [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --ignore-scripts --no-audit --no-fund
  npm test
}
build_typescript-json() { build_typescript; }

build_kotlin() {
  cd kotlin
  [ -n "$(find target/built -newer pom.xml 2>/dev/null)" ] &&
    [ -z "$(find pom.xml src ../../schemas/proto -newer target/built -type f)" ] && return
  mvn -q -B -ntp -Dkotlin.compiler.daemon=false package
  touch target/built
}

# Maven takes longest: the others are built beside it.
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
pids=()
for client in "${clients[@]}"; do
  [ "$client" = typescript-json ] && [[ " ${clients[*]} " = *" typescript "* ]] && continue
  (set -e; "build_$client") >"$logs/$client" 2>&1 &
  pids+=("$!:$client")
done
for pid in "${pids[@]}"; do
  wait "${pid%%:*}" || { cat "$logs/${pid#*:}"; echo "the client in ${pid#*:} does not build"; exit 1; }
done

command_of() {
  case $1 in
  go) echo ../bin/deliver ;;
  python) echo "$python/bin/python" python/deliver.py ;;
  typescript) echo node typescript/dist/deliver.js ;;
  typescript-json) echo node typescript/dist/deliver.js --json ;;
  kotlin) echo java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp kotlin/target/classes:kotlin/target/lib/* io.github.starlingfleet.driver.DeliverKt ;;
  esac
}

failed=()
for client in "${clients[@]}"; do
  printf '\n%s:\n' "$client"
  read -ra command < <(command_of "$client")
  "$starling" conformance --ack-timeout 5s --parallel "${PARALLEL:-6}" --seed "${SEED:-1}" -- "${command[@]}" || failed+=("$client")
done
echo
echo "clients: $((${#clients[@]} - ${#failed[@]})) passed, ${#failed[@]} failed"
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
