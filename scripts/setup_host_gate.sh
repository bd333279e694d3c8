#!/bin/sh
# Mounts the view of another machine on this one, and brings a repository over there first if asked to:
#
#   scripts/setup_host_gate.sh --vm-user USER --vm-host HOST [--ssh-port PORT] [--install-sshfs]
#       [--mount-method gate|sshfs|direct] [--host-mount [DIR]] [--sync --repo-path DIR --vm-repo-path DIR]
#
# `gate setup-host --help` lists what it takes; docs/doors.md tells the methods apart.
set -eu
here=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
exec "$here/gate" setup-host "$@"
