#!/bin/bash
# Names everything that this machine lacks, all at once, with the command that installs it. On Debian as root it installs
# the packages itself. As arguments, what is wanted beside a build:
#   cluster   what the local cluster asks of the machine, said before anything long is begun
#   lints     rustfmt and clippy
#   analysis  what the contracts' analysis needs
set -euo pipefail
wanted=" $* "
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
  if ! [[ $have =~ [0-9]+(\.[0-9]+)+ ]]; then
    unfit+=("broken: $name does not tell its version: $where")
  elif [ "$(printf '%s\n' "$least" "${BASH_REMATCH[0]}" | sort -V | head -1)" != "$least" ]; then
    unfit+=("too old: $name ${BASH_REMATCH[0]}, and $least or newer is needed: $where")
  fi
}

wants() {
  [[ $wanted == *" $1 "* ]]
}

# What no package mends.
machine() {
  [ "$(uname -sm)" = "Linux x86_64" ] || unfit+=("not fit: this is $(uname -sm), and the tools of the contracts and the cluster are built for Linux x86_64")
  [[ $PWD != *[[:space:]]* ]] || unfit+=("not fit: the path $PWD has a space in it: move the checkout")
  wants cluster || return 0
  if [ "$(id -u)" != 0 ]; then
    unfit+=("not fit: the local cluster makes namespaces, mounts and cgroups: run it as root")
  elif ! grep -qE '^[^ ]+ /sys/fs/cgroup[^ ]* cgroup2? rw' /proc/self/mounts; then
    unfit+=("not fit: no cgroup file system is mounted writable below /sys/fs/cgroup: run it on a machine that allows it")
  fi
  local free need=4
  # Programs that have to be built yet take room too.
  [ -d target ] && [ -e .state/bin/kube ] || need=16
  free=$(($(stat -f -c '%a * %S' .) >> 30))
  [ "$free" -ge "$need" ] || unfit+=("not fit: $PWD has $free GiB left on its disk and $need are needed: make room, or move the checkout")
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
  # The kernel has a header of the same name.
  file "libseccomp's development files" libseccomp-dev '/usr/lib*/pkgconfig/libseccomp.pc' '/usr/lib/*/pkgconfig/libseccomp.pc'
  program flock util-linux
  program ip iproute2
  program iptables
  program conntrack
  program sysctl procps
  program mkfs.ext4 e2fsprogs
  file "the CNI plugins" containernetworking-plugins /usr/lib/cni/bridge
  program prometheus
  file "PostgreSQL's server" postgresql '/usr/lib/postgresql/*/bin/postgres'
  ! wants analysis || file "Python's venv" python3-venv '/usr/lib/python3*/ensurepip/__init__.py' '/usr/local/lib/python3*/ensurepip/__init__.py'
  file "CA certificates" ca-certificates '/usr/share/ca-certificates/mozilla/*.crt'
}

# What Cargo.toml asks for, and the most that a go.mod file does: Go refuses a module that wants one patch more than it is.
rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
golang=$(sed -n 's/^go //p' e2e/cluster/go.mod e2e/cluster/*/go.mod | sort -V | tail -1)
tool cargo "$rust" "install Rust from https://rustup.rs" cargo --version
tool go "$golang" "install Go from https://go.dev/dl" go env GOVERSION
tool node 20.0 "install Node.js from https://nodejs.org" node --version
# npm takes long to tell its version, and any that comes with such a Node.js will do.
command -v npm > /dev/null || unfit+=("missing: npm: it comes with Node.js")
if wants lints; then
  cargo fmt --version > /dev/null 2>&1 || unfit+=("missing: rustfmt: rustup component add rustfmt")
  cargo clippy --version > /dev/null 2>&1 || unfit+=("missing: clippy: rustup component add clippy")
fi
machine
look

if [ ${#missing[@]} -gt 0 ]; then
  install="apt-get update && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ${packages[*]}"
  if [ -f /etc/debian_version ] && [ "$(id -u)" = 0 ]; then
    echo "installing: ${packages[*]}"
    log=$(mktemp)
    clean=("$log")
    trap 'rm -f "${clean[@]}"' EXIT
    # None of their services is started: Debian asks this file, and where there is no systemd, RUNLEVEL.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
      clean+=("$policy")
      printf '#!/bin/sh\nexit 101\n' > $policy
      chmod +x $policy
    fi
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
