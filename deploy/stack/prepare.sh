#!/usr/bin/env bash
# Makes what docker-compose.yml needs on a Debian machine without a Docker engine and without an image registry: packages
# (podman, buildah, docker-compose), stand-ins for the public images under their public names, and the project's image.
#
#   deploy/stack/prepare.sh            # as root; five to twenty minutes the first time, then seconds
#
# MIRROR        where Debian's packages come from (default: debootstrap's own)
# TORCH_INDEX   an index of CPU wheels of torch, for a small image
# CERTIFICATES  a bundle that pip and uv shall trust while the image is built (default: the machine's own)
#
# Starts no service and changes nothing in /etc but what the packages bring. Keeps its root file system in build/stack/.
set -euo pipefail
cd "$(dirname "$0")/../.."

here=deploy/stack
certificates=${CERTIFICATES:-/etc/ssl/certs/ca-certificates.crt}
export CONTAINERS_CONF=$PWD/$here/containers.conf
export BUILDAH_FORMAT=docker # the other format knows no health checks
packages=(podman buildah runc netavark aardvark-dns iptables debootstrap docker-compose)

step() { printf '%s %s\n' "$(date +%T)" "$*"; }
[ "$(id -u)" = 0 ] || { echo "prepare.sh has to be root: it installs packages and imports root file systems." >&2; exit 2; }

if ! dpkg --status "${packages[@]}" >/dev/null 2>&1; then
  # No service may start by being installed.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f $policy' EXIT
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
  step "packages installed"
fi

ls .kafka/libs/kafka_*.jar >/dev/null 2>&1 ||
  .venv/bin/python -c 'import sys; sys.path.insert(0, "tests"); import kafka_broker; kafka_broker.prepare()'

# The certificates and Debian's word on pip are of the stand-in, so the project's Dockerfile need not know of them.
if ! podman image exists localhost/forecaster-stack-base; then
  if [ ! -e build/stack/base.made ]; then
    rm -rf build/stack/base
    mkdir -p build/stack
    debootstrap --variant=minbase --include=python3,python3-pip,ca-certificates,wget bookworm build/stack/base ${MIRROR:+"$MIRROR"} >build/stack/debootstrap.log
    cp "$certificates" build/stack/base/etc/ssl/certs/ca-certificates.crt
    ln -sf python3 build/stack/base/usr/bin/python
    rm -rf build/stack/base/var/cache/apt/archives/*.deb build/stack/base/var/lib/apt/lists/*
    touch build/stack/base.made
    step "root file system made"
  fi
  tar -C build/stack/base -c . | podman import --quiet \
    --change ENV=PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    --change ENV=SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    --change ENV=PIP_BREAK_SYSTEM_PACKAGES=1 \
    --change ENV=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    - localhost/forecaster-stack-base
  step "base imported"
fi

build() { buildah bud --isolation chroot --network host --pull-never --layers --quiet "$@" >/dev/null; }

# Under the names that the compose file and the Dockerfile ask for, versions and all.
podman tag localhost/forecaster-stack-base docker.io/library/python:3.11-slim-bookworm
sed -nE 's/^ +image: (([a-z]+)\/([a-z]+):.*)$/\1 \3/p' docker-compose.yml | while read -r image target; do
  build --target "$target" -t "docker.io/$image" -f $here/Containerfile --ignorefile $here/Containerfile.ignore .
  step "$image stands in"
done

build --build-arg "TORCH_INDEX=${TORCH_INDEX:-}" -t forecaster:dev -f deploy/Dockerfile .
step "forecaster:dev built"
