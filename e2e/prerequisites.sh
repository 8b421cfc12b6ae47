#!/bin/bash
# Names everything that this machine lacks, all at once, with the command that installs it. On Debian as root it installs
# the packages itself.
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"

missing=()
packages=()
unfit=()

# debian WHAT PACKAGE: what is not there, and Debian's package that has it.
debian() {
  missing+=("$1")
  packages+=("$2")
}
# program NAME [PACKAGE]
program() {
  command -v "$1" > /dev/null || debian "$1" "${2:-$1}"
}
# file WHAT PACKAGE PATTERN...: one file that matches is enough.
file() {
  local what=$1 package=$2 pattern
  shift 2
  for pattern in "$@"; do
    if compgen -G "$pattern" > /dev/null; then return; fi
  done
  debian "$what" "$package"
}
# tool NAME LEAST WHERE COMMAND...: a tool that Debian has too old; the command prints its version.
tool() {
  local name=$1 least=$2 where=$3 have
  shift 3
  if ! command -v "$name" > /dev/null; then
    unfit+=("missing: $name $least or newer: $where")
    return
  fi
  have=$("$@" 2> /dev/null) || have=
  if ! [[ $have =~ ([0-9]+)\.([0-9]+) ]]; then
    unfit+=("broken: $name does not tell its version: $where")
  elif ((BASH_REMATCH[1] * 10000 + BASH_REMATCH[2] < ${least%.*} * 10000 + ${least#*.})); then
    unfit+=("too old: $name ${BASH_REMATCH[0]}, and $least or newer is needed: $where")
  fi
}

look() {
  missing=() packages=()
  program make
  program git
  program gcc
  # Every program of ours is one static file.
  file "the C library's static files" libc6-dev '/usr/lib/*/libc.a' /usr/lib/libc.a /usr/lib64/libc.a
  program strip binutils
  program pkg-config
  file "seccomp.h" libseccomp-dev /usr/include/seccomp.h '/usr/include/*/seccomp.h'
  program ip iproute2
  program iptables
  program conntrack
  program sysctl procps
  program mkfs.ext4 e2fsprogs
  file "the CNI plugins" containernetworking-plugins /usr/lib/cni/bridge
  program prometheus
  file "PostgreSQL's server" postgresql '/usr/lib/postgresql/*/bin/postgres'
  file "CA certificates" ca-certificates /etc/ssl/certs/ca-certificates.crt
}

# The versions are those that Cargo.toml and the go.mod files ask for.
tool cargo 1.95 "install Rust from https://rustup.rs" cargo --version
tool go 1.26 "install Go from https://go.dev/dl" go env GOVERSION
tool node 20.0 "install Node.js from https://nodejs.org" node --version
# npm takes long to tell its version, and any that comes with such a Node.js will do.
command -v npm > /dev/null || unfit+=("missing: npm: it comes with Node.js")
look

if [ ${#missing[@]} -gt 0 ]; then
  install="apt-get update && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ${packages[*]}"
  if [ -f /etc/debian_version ] && [ "$(id -u)" = 0 ]; then
    echo "installing: ${packages[*]}"
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    # RUNLEVEL=1: none of their services is started.
    if ! { apt-get -qq update && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
      apt-get -qq install -y --no-install-recommends "${packages[@]}"; } > "$log" 2>&1 < /dev/null; then
      tail -20 "$log"
      unfit+=("not installed; by hand: $install")
    else
      look
      for what in "${missing[@]}"; do
        unfit+=("missing: $what, although its package is installed")
      done
    fi
  else
    for what in "${missing[@]}"; do
      unfit+=("missing: $what")
    done
    [ -f /etc/debian_version ] && where="as root" || where="these are Debian's packages; as root"
    unfit+=("install them, $where: $install")
  fi
fi

[ ${#unfit[@]} -gt 0 ] || exit 0
printf '%s\n' "${unfit[@]}" >&2
exit 1
