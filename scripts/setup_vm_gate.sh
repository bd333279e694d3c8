#!/bin/sh
# Installs Gate as services in this Debian or Ubuntu machine, from the clone or bundle that this script lies in:
#
#   scripts/setup_vm_gate.sh --repo-path DIR [--mount DIR] [--user NAME] [--start]
#
# Settings go to /etc/gate/gate.env, state to /var/lib/gate. `gate setup-vm --help` lists what it takes.
set -eu
here=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  missing=
  command -v fusermount3 >/dev/null || missing="$missing fuse3"
  command -v rsync >/dev/null || missing="$missing rsync"
  [ -x /usr/sbin/sshd ] || missing="$missing openssh-server"
  # A bundle brings its packages along.
  [ -r "$here/node_modules/.gate-stamp" ] || command -v npm >/dev/null || missing="$missing nodejs npm"
  if [ -n "$missing" ]; then
    echo "setup: installing$missing" >&2
    apt-get update -q >/dev/null
    # shellcheck disable=SC2086 # words
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing >/dev/null
  fi
fi
exec "$here/gate" setup-vm "$@"
