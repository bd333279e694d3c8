#!/usr/bin/env bash
# One process holds a file open for writing for five seconds; a second one opens it for writing after one. Passes
# when the second one waited at least four seconds. Works on any mounted view: FUSE, SFTP, another host's.
#
#   scripts/smoke_test_fifo_sshfs.sh [MOUNT]
#
# Default MOUNT: the first view that is mounted here, else /mnt/gate_host.
set -u

mount=${1:-}
if [ -z "$mount" ]; then
  mount=$(awk '$3 == "fuse.gate" { print $2; exit }' /proc/mounts)
  # /proc/mounts writes a blank as \040.
  mount=$(printf '%b' "${mount:-/mnt/gate_host}")
fi
say() { printf 'smoke: %s\n' "$*"; }
die() { say "FAILED: $*"; exit 1; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }

[ -d "$mount" ] || die "$mount is not a directory; name the mount point of a view"
file=$mount/gate-smoke-$$.txt
holder=
trap '[ -z "$holder" ] || { kill "$holder" 2>/dev/null; wait "$holder" 2>/dev/null; }; rm -f -- "$file"' EXIT
: >"$file" || die "$file cannot be written"

say "view: $mount"
# Five seconds, and a little for a machine on which starting a process takes long.
GATE_ACTOR=smoke-first bash -c 'exec 3>>"$1" && echo first >&3 && sleep 5.4' smoke "$file" &
holder=$!
sleep 1
kill -0 "$holder" 2>/dev/null || die "the first process could not open $file"

start=$(now_ms)
GATE_ACTOR=smoke-second bash -c 'exec 3>>"$1" && echo second >&3' smoke "$file" || die "the second process could not open $file"
waited=$(($(now_ms) - start))
wait "$holder" || die "the first process failed"
holder=

[ "$waited" -ge 4000 ] || die "the second process waited only $waited ms; it should have waited for the first one"
content=$(tr '\n' ' ' <"$file")
[ "$content" = "first second " ] || die "the file holds '$content' instead of 'first second '"
say "passed: the second process waited $waited ms for the first one"
