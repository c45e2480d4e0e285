#!/usr/bin/env bash
# `make test-stack`: with the Docker engine where there is one; else with podman, as root, after prepare.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."

if docker info >/dev/null 2>&1; then
  exec deploy/test_stack.sh
fi
deploy/stack/prepare.sh

scratch=$(mktemp -d)
export CONTAINERS_CONF=$PWD/deploy/stack/containers.conf DOCKER_HOST=unix://$scratch/podman.sock
podman system service --time=0 "$DOCKER_HOST" 2>"$scratch/service.log" &
service=$!
end() {
  code=$?
  kill $service 2>/dev/null || true
  wait $service 2>/dev/null || true
  rm -rf "$scratch"
  exit $code
}
trap end EXIT
until [ -S "$scratch/podman.sock" ]; do
  kill -0 $service || { cat "$scratch/service.log"; exit 1; }
  sleep 0.2
done

export COMPOSE_FILE=docker-compose.yml:deploy/stack/override.yml PODMAN=1 NO_BUILD=1 NO_GRAFANA=1
export RUN_FLAGS="--ulimit nofile=8192:8192 --ulimit nproc=4096:4096"
deploy/test_stack.sh
