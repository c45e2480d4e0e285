#!/usr/bin/env bash
# Runs docker-compose.yml for real and looks at what comes out: answers, a model, metrics, alerts, dashboards; then three
# workers and 1,000 streams, a worker killed, the broker restarted and killed, and two audits: every reading answered
# once. Leaves nothing behind, or fails. Writes benchmarks/results/stack.json, which docs/deployment.md quotes.
#
#   deploy/test_stack.sh               # Docker, docker-compose, curl; ports 3000, 9090, 9092, 9093 free; 15 minutes
#   deploy/stack/run.sh                # the same without a Docker engine, as root on Debian (make test-stack)
#
# COMPOSE       the command, "docker compose" for one (default: docker-compose)
# COMPOSE_FILE  files to use instead, as compose itself reads it: docker-compose.yml:limits.yml
# NO_BUILD=1    takes the image as it is; IMAGE names it (default: forecaster:dev)
# PODMAN=1      the engine is podman, reached through DOCKER_HOST, on a machine without systemd: it runs no health checks
#               by itself, so they are run here
# RUN_FLAGS     for a container that is run beside the stack
# NO_GRAFANA=1  what listens at port 3000 only stands in for Grafana: it is asked for its health and nothing more
# UNDER_LOAD    a command to run while all is up and readings of 1,000 streams come, after the kills
# PATIENCE      all times out are multiplied by this on a slow machine (default: 1)
set -euo pipefail
cd "$(dirname "$0")/.."

project=forecaster-stack-test
compose=(${COMPOSE:-docker-compose} -p "$project")
second=${project}_simulator_1000
engine=docker
[ -n "${PODMAN:-}" ] && engine=podman

# Compose joins a name with underscores or, since version 2, with hyphens.
container() { "$engine" ps -a --format '{{.Names}}' | grep -xE "${project}[-_]$1[-_]${2:-[0-9]+}" | sort | head -1; }

step() { printf '%s %s\n' "$(date +%T)" "$*"; }
fail() {
  step "FAILED: $*"
  "$engine" ps -a || true
  for name in $("$engine" ps -a --format '{{.Names}}' | grep -E "^$project.(forecaster|topics)"); do
    echo "--- $name"
    "$engine" logs --tail 30 "$name" || true
  done
  exit 1
}

# until_true SECONDS WHAT COMMAND…
until_true() {
  local began=$SECONDS deadline=$((SECONDS + $1 * ${PATIENCE:-1})) what=$2
  shift 2
  until "$@"; do
    [ $SECONDS -lt $deadline ] || fail "not within $((deadline - began)) s: $what"
    sleep 2
  done
  step "$what ($((SECONDS - began)) s)"
}

health_checks() {
  while sleep 10; do # the interval of every check in docker-compose.yml
    for name in $(podman ps --format '{{.Names}}' | grep "^$project"); do
      podman healthcheck run "$name" >/dev/null 2>&1 || true # has a limit of its own; cut short it spoils its log
    done
  done
}

# The value of a query that has one, as a whole number.
prometheus() {
  curl -sf -m 5 -G http://localhost:9090/api/v1/query --data-urlencode "query=$1" |
    sed -nE 's/.*"value":\[[^,]*,"(-?[0-9]+)[^"]*"\].*/\1/p'
}
is() { [ "$(prometheus "$1")" = "$2" ]; }
above() { [ "$(prometheus "$1")" -gt "$2" ] 2>/dev/null; }
worker() { "$engine" exec "$(container forecaster)" "$@"; }
exit_code() { "$engine" inspect --format '{{.State.ExitCode}}' "$1"; }
is_healthy() { [ "$("$engine" inspect --format '{{.State.Health.Status}}' "$(container "$1")")" = healthy ]; }
are_loaded() { curl -sf -m 5 http://localhost:9090/api/v1/rules | grep -q '"ForecasterWorseThanNaive"'; }
has_alertmanager() { curl -sf -m 5 http://localhost:9090/api/v1/alertmanagers | grep -q '"url":"http://alertmanager:9093'; }
live_page() { curl -sf -m 5 "http://$("${compose[@]}" port forecaster 8000)/readyz" >/dev/null; }
four_dashboards() {
  [ "$(curl -sf -m 5 -u "admin:$(cat "${GRAFANA_PASSWORD_FILE:-deploy/grafana/initial-password}")" \
    'http://localhost:3000/api/search?tag=forecaster' | grep -o '"uid":"forecaster-' | wc -l)" = 4 ]
}
scale() { "${compose[@]}" up -d --no-build --no-recreate --scale "forecaster=$1" >/dev/null 2>&1; }
all_partitions_with() { is 'sum(up{job="forecaster"})' "$1" && is 'sum(forecaster_owned_partitions)' 4 && is 'sum(forecaster_restoring_partitions)' 0; }

checks=
cleanup() {
  local code=$?
  [ -n "$checks" ] && kill "$checks" 2>/dev/null
  "$engine" rm -f "$second" >/dev/null 2>&1 || true # there only where the run came so far
  # Twice, for a container that was on its way up again.
  "${compose[@]}" down -v --timeout 30 >/dev/null 2>&1 || "${compose[@]}" down -v --timeout 30 >/dev/null 2>&1 ||
    step "compose could not take the stack down"
  for kind in "ps -a --format {{.Names}}" "volume ls --format {{.Name}}" "network ls --format {{.Name}}"; do
    if "$engine" $kind | grep "^$project"; then
      step "FAILED: left behind, see above ($kind)"
      code=1
    fi
  done
  [ $code -ne 0 ] || step "all well, and nothing left behind"
  exit $code
}
trap cleanup EXIT

if [ -z "${NO_BUILD:-}" ]; then
  "${compose[@]}" build
  step "image built"
fi
image=${IMAGE:-forecaster:dev}
# Not its version alone: torch has to load and readings to be answered.
# shellcheck disable=SC2086
lines=$("$engine" run --rm ${RUN_FLAGS:-} --read-only --tmpfs /tmp --user 65532 --cap-drop ALL --entrypoint sh "$image" -c \
  "forecaster demo --seconds 20 --port 0 --out /tmp/forecasts.jsonl >/tmp/said 2>&1 || { cat /tmp/said >&2; exit 1; }
   wc -l </tmp/forecasts.jsonl") || fail "the image does not run as anybody, read-only, without capabilities"
[ "$lines" -gt 1000 ] || fail "only $lines forecasts by the image on its own"
step "the image answers as anybody, read-only, without capabilities: $lines forecasts"
image_bytes=$("$engine" image inspect --format '{{.Size}}' "$image")
load=$(cut -d' ' -f1 /proc/loadavg)

[ -n "${PODMAN:-}" ] && { health_checks & checks=$!; }
began=$SECONDS began_at=$(date +%s)
"${compose[@]}" up -d --no-build || fail "compose up"
[ "$(exit_code "$(container topics)")" = 0 ] || fail "topics create"
until_true 120 "a forecast is on the dashboard" above 'sum(forecaster_forecasts_total)' 0
first_forecast=$((SECONDS - began))
step "from nothing to the first forecast on the dashboard: $first_forecast s"
for service in kafka forecaster trainer prometheus alertmanager grafana; do
  until_true 120 "the health check of $service is content" is_healthy $service
done
until_true 60 "the live page is where compose says" live_page
until_true 60 "rules are loaded" are_loaded
until_true 60 "Prometheus knows Alertmanager" has_alertmanager
[ -n "${NO_GRAFANA:-}" ] || until_true 60 "Grafana has the four dashboards" four_dashboards
until_true 240 "thousands of readings are answered" above 'sum(forecaster_records_total)' 10000

worker forecaster doctor || fail "doctor inside the container"
step "doctor finds no problem"
# Where its user may write, so that nothing but the mount keeps it from doing so; /tmp says that `touch` is there.
worker touch /tmp/was-here || fail "its /tmp cannot be written"
[ "$(worker sh -c 'stat -c %u . && id -u' | sort -u | wc -l)" = 1 ] || fail "its home is somebody else's"
if worker touch was-here 2>/dev/null; then fail "its disk can be written"; fi
step "its disk is read-only"

scale 3
until_true 180 "three workers share the partitions" all_partitions_with 3
# Not by `compose run`: beside a container of the same service it asks for a link, which podman does not have.
# shellcheck disable=SC2086
"$engine" run -d --name "$second" --restart on-failure --no-healthcheck --network "${project}_default" ${RUN_FLAGS:-} --read-only --tmpfs /tmp --cap-drop ALL \
  --env FORECASTER_KAFKA__BOOTSTRAP_SERVERS=kafka:9092 "$image" simulate --streams 1000 --faults >/dev/null || fail "a second simulator"
# Some of them are those that the first simulator has.
until_true 240 "a thousand streams" above 'sum(forecaster_known_streams)' 999
victim=$(container forecaster 2)
"$engine" kill -s KILL "$victim" >/dev/null
step "killed $victim"
until_true 180 "the other two have its partitions" all_partitions_with 2
scale 3
until_true 180 "three again" all_partitions_with 3
"$engine" restart --time 20 "$(container kafka)" >/dev/null
step "restarted the broker"
until_true 120 "its health check is content again" is_healthy kafka
commits=$(prometheus 'sum(forecaster_commits_total)')
until_true 240 "commits go on" above 'sum(forecaster_commits_total)' $((commits + 20))
until_true 180 "by three workers" all_partitions_with 3
"$engine" kill -s KILL "$(container kafka)" >/dev/null
sleep 5
"$engine" start "$(container kafka)" >/dev/null 2>&1 || true # where the engine has not already started it again
step "killed the broker"
until_true 120 "its health check is content again" is_healthy kafka
commits=$(prometheus 'sum(forecaster_commits_total)')
until_true 240 "commits go on" above 'sum(forecaster_commits_total)' $((${commits:-0} + 20))
until_true 180 "by three workers" all_partitions_with 3

until_true 420 "a model was promoted and serves" above 'count(forecaster_model_info{version=~"[a-z]+-[0-9].*"})' 0
first_model=$(prometheus "min(min_over_time((forecaster_promotion_timestamp_seconds > 0)[1h:5s])) - $began_at")

if [ -n "${UNDER_LOAD:-}" ]; then
  bash -c "$UNDER_LOAD" || fail "$UNDER_LOAD"
  step "done: $UNDER_LOAD"
fi

# shellcheck disable=SC2046
"$engine" stop --time 30 $("$engine" ps --format '{{.Names}}' | grep -E "^${project}[-_]simulator") >/dev/null
until_true 240 "all is answered" is 'sum(forecaster_consumer_lag_records)' 0
sleep 10 # the last commit, and a scrape of it
worker forecaster verify --complete || fail "the audit by forecaster verify"
count=$("$engine" exec -i "$(container forecaster)" python - <deploy/stack/count.py) || fail "a plain consumer counts $count"
step "every reading has its one answer: $count"

last=$(container forecaster)
began=$SECONDS
"$engine" stop --time 30 "$last" >/dev/null
[ "$(exit_code "$last")" = 0 ] || fail "SIGTERM ended $last with $(exit_code "$last")"
step "SIGTERM: exit code 0 after $((SECONDS - began)) s"
"$engine" start "$last" >/dev/null
until_true 120 "it is back, with the model it had" all_partitions_with 3
is 'count(count by (version) (forecaster_model_info))' 1 || fail "workers answer with different models"
python3 deploy/stack/record.py "engine=$engine" "cores=$(nproc)" "load=$load" "first_forecast_seconds=$first_forecast" \
  "first_model_seconds=$first_model" "image_bytes=$image_bytes" "torch_index=\"${TORCH_INDEX:-}\"" "count=$count"
