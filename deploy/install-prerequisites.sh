#!/usr/bin/env bash
# Install the Debian packages that pyswarm, its lab and its tests use, or those named; do nothing when all are there.
set -euo pipefail

packages=(
  busybox-static      # the lab's web image
  docker-registry     # a real registry for the lab and the tests
  e2fsprogs           # the nemesis: disks that run full
  iproute2            # network namespaces of the lab's hosts
  libfaketime         # the nemesis: wall clocks that jump
  libnftables1        # published ports, NAT
  libseccomp2         # seccomp filters
  nftables
  openssl             # the tests' hostile clients
  procps
  python3-venv
  strace              # the test that watches a member sync before it answers
  uidmap              # ids of an ordinary user's containers
  user-mode-linux     # the tests' kernel with cgroup v2
  util-linux          # nsenter, unshare
)
if [ $# -gt 0 ]; then packages=("$@"); fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then exit 0; fi

if [ "$(id -u)" -ne 0 ]; then
  echo "These packages are missing: ${missing[*]}" >&2
  echo "Run as root, or install them first: apt-get install ${missing[*]}" >&2
  exit 1
fi
echo "Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# A package's own service must not start here: the lab runs its registry itself.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod 755 "$policy"
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
