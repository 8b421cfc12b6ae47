#!/bin/bash
# Names everything that this machine lacks, all at once, with the command that installs it. On Debian as root it installs
# the packages itself.
set -euo pipefail

missing=()
packages=()

# need WHAT PACKAGE: a package of Debian's that is not there.
need() {
  missing+=("$1")
  packages+=("$2")
}
# find_file PATTERN...: whether one of the files exists.
find_file() {
  local pattern
  for pattern in "$@"; do
    compgen -G "$pattern" > /dev/null && return 0
  done
  return 1
}
PATH="$PATH:/usr/sbin:/sbin"
command -v iptables > /dev/null || need iptables iptables
command -v conntrack > /dev/null || need conntrack conntrack
find_file /usr/lib/cni/bridge /opt/cni/bin/bridge || need "CNI plugins" containernetworking-plugins
command -v ip > /dev/null || need ip iproute2
command -v mkfs.ext4 > /dev/null || need mkfs.ext4 e2fsprogs
find_file /usr/include/seccomp.h || need "libseccomp's headers" libseccomp-dev
command -v pkg-config > /dev/null || need pkg-config pkg-config
command -v prometheus > /dev/null || need prometheus prometheus
command -v cc > /dev/null || need "a C compiler" gcc
command -v strip > /dev/null || need strip binutils
find_file /etc/ssl/certs/ca-certificates.crt || need "CA certificates" ca-certificates

# tool NAME LEAST HOW: a tool whose version is too old or that is not there.
broken=0
tool() {
  local name=$1 least=$2 how=$3 have
  if ! command -v "$name" > /dev/null; then
    echo "missing: $name $least or newer: $how"
    broken=1
    return
  fi
  case $name in
    go) have=$(go env GOVERSION) ;;
    *) have=$("$name" --version) ;;
  esac
  have=$(grep -oE '[0-9]+\.[0-9]+' <<< "$have" | head -1)
  if [ "$(printf '%s\n%s\n' "$least" "$have" | sort -V | head -1)" != "$least" ]; then
    echo "too old: $name $have, and $least is needed: $how"
    broken=1
  fi
}
tool cargo 1.95 "install Rust with rustup"
tool go 1.26 "install Go from go.dev/dl"
tool node 20.0 "install Node.js from nodejs.org"
tool npm 10.0 "npm comes with Node.js"

if [ ${#missing[@]} -gt 0 ]; then
  printf 'missing: %s\n' "${missing[@]}"
  install="apt-get update && apt-get install -y --no-install-recommends ${packages[*]}"
  if [ -f /etc/debian_version ] && [ "$(id -u)" = 0 ]; then
    echo "installing: ${packages[*]}"
    # RUNLEVEL=1: no service of theirs is started.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    log=$(mktemp)
    if ! { apt-get -qq update && apt-get -qq install -y --no-install-recommends "${packages[@]}"; } > "$log" 2>&1; then
      tail -20 "$log"
      echo "installing failed; by hand: $install"
      exit 1
    fi
    rm -f "$log"
  else
    echo "install them: $install"
    broken=1
  fi
fi
exit $broken
