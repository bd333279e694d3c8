#!/usr/bin/env bash
# Is a mount a view in which programs take turns? Through whatever door it is mounted:
#
#   scripts/smoke_test_fifo_sshfs.sh [MOUNT]
#
# 1. One process holds a file open for writing for five seconds; a second one opens it for writing after one: it must wait at least four.
# 2. A reader waits for a writer, and sees all that it wrote.
# 3. Meanwhile nothing else stands still: names are listed, other files are read and made.
# 4. An editor's save: a new file is renamed over the old one.
#
# Over sshfs an open waits for a moment only and then fails with EPERM (docs/doors.md): there the second process of 1 tries again.
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
case $(stat -f -c %T -- "$mount" 2>/dev/null):$(findmnt -n -o FSTYPE -T "$mount" 2>/dev/null) in
  *:fuse.gate) door='a view of Gate (the mount itself, or the doors gate and direct)' park= ;;
  *:fuse.sshfs) door='sshfs: opens wait for a moment only' park=1 ;;
  *) door='an unknown file system' park= ;;
esac
dir=$mount/gate-smoke-$$
file=$dir/f
holder=
cleanup() {
  [ -z "$holder" ] || { kill "$holder" 2>/dev/null; wait "$holder" 2>/dev/null; }
  rm -rf -- "$dir"
}
trap cleanup EXIT
mkdir -- "$dir" || die "$mount cannot be written"
: >"$file" || die "$file cannot be written"

# append NAME WORD [SECONDS]: as one actor, adds a line, and holds the file for so long.
append() {
  GATE_ACTOR=smoke-$1 bash -c 'exec 3>>"$1" && echo "$2" >&3 && sleep "$3"' smoke "$file" "$2" "${3:-0}"
}
# Until the first one has its line in the file it may not have it open yet.
has_line() {
  local i
  for i in $(seq 100); do
    [ -s "$file" ] && return
    sleep 0.1
  done
  die 'the first process did not come to write'
}

say "view: $mount: $door"

# --- 1: writers, in the order in which they came ---
# Five seconds, and a little for a machine on which starting a process takes long.
append first first 5.4 &
holder=$!
sleep 1
kill -0 "$holder" 2>/dev/null || die "the first process could not open $file"
has_line
start=$(now_ms)
tries=1
until said=$(append second second 2>&1); do
  [ -n "$park" ] || die "the second process could not open $file: $said"
  case $said in *'not permitted'*) ;; *) die "the second process could not open $file: $said" ;; esac
  [ $(($(now_ms) - start)) -lt 60000 ] || die "the second process never got its turn: $said"
  tries=$((tries + 1))
done
waited=$(($(now_ms) - start))
wait "$holder" || die 'the first process failed'
holder=
# What `has_line` waited for counts as well: it was held then already.
[ "$waited" -ge 4000 ] || die "the second process waited only $waited ms; it should have waited for the first one"
content=$(tr '\n' ' ' <"$file")
[ "$content" = 'first second ' ] || die "the file holds '$content' instead of 'first second '"
say "passed: the second process waited $waited ms for the first one$([ -z "$park" ] || echo ", in $tries tries")"

# --- 2 and 3: a reader, and everybody else ---
: >"$file"
echo other >"$dir/other"
append writer begin 1 &
holder=$!
has_line
GATE_ACTOR=smoke-writer bash -c 'exec 3>>"$1" && echo end >&3' smoke "$dir/note" || die 'another file could not be made'
listed=$(ls -- "$dir" | tr '\n' ' ')
[ "$listed" = 'f note other ' ] || die "the directory lists '$listed' while a file is held"
[ "$(cat -- "$dir/other")" = other ] || die 'another file could not be read while one is held'
until content=$(cat -- "$file" 2>&1); do
  [ -n "$park" ] || die "the reader failed: $content"
  sleep 0.1
done
wait "$holder" || die 'the writer failed'
holder=
[ "$content" = begin ] || die "the reader saw '$content'"
say 'passed: a reader waited for the writer and saw all of it, and nothing else stood still'

# --- 4: a save ---
echo saved >"$dir/f.new" && mv -f -- "$dir/f.new" "$file" || die 'the new file could not be renamed over the old one'
[ "$(cat -- "$file")" = saved ] || die 'the renamed file is not the new one'
[ ! -e "$dir/f.new" ] || die 'the new name is still there'
chmod 600 "$file" && rm -- "$file" && [ ! -e "$file" ] || die 'the file could not be removed'
say 'passed: saved by rename, changed and removed'
say "passed: all, through $door"
