#!/usr/bin/env bash
# Backs up one simulated device with snap and idevicebackup2 in turn: first in full,
# then after each day of use. Prints the time and memory that each backup took. It
# needs idevicebackup2 (libimobiledevice-utils) and GNU time.
#
#   bench/device.sh [SCALE]        tiny, small, medium (default) or large
#   DAYS=1 bench/device.sh         one day of use, not three
#   ENCRYPT=all bench/device.sh    a device that encrypts; snap knows the password
set -euo pipefail
cd "$(dirname "$0")/.."
scale=${1:-medium}
dir=$(mktemp -d "${TMPDIR:-/tmp}/snap-device-XXXXXX")
trap 'exec 3>&-; wait; rm -rf "$dir"' EXIT

go build -o "$dir/snap" ./cmd/snap
export SNAP_REPOSITORY=$dir/repo SNAP_PASSWORD=bench SNAP_BACKUP_PASSWORD=synthetic
export XDG_CACHE_HOME=$dir/cache USBMUXD_SOCKET_ADDRESS=UNIX://$dir/mux
"$dir/snap" init >/dev/null 2>&1
mkfifo "$dir/in"
"$dir/snap" simulate --socket "$dir/mux" --state "$dir/state" --scale "$scale" --encrypt "${ENCRYPT:-none}" <"$dir/in" >"$dir/log" 2>&1 &
exec 3>"$dir/in"
said() { # said N TEXT: waits until the simulator has said TEXT N times
  until [ "$(grep -c "$2" "$dir/log")" -ge "$1" ]; do sleep 0.2; done
}
said 1 'lists the commands'

printf '%-34s %8s %8s %8s %10s\n' "$scale, encryption ${ENCRYPT:-none}" wall_s user_s sys_s memory_MB
measure() { # measure NAME COMMAND...
  local name=$1
  shift
  command time -o "$dir/time" -f '%e %U %S %M' "$@" >"$dir/out" 2>&1 || { cat "$dir/out"; exit 1; }
  awk -v name="$name" '{ printf "%-34s %8.2f %8.2f %8.2f %10.0f\n", name, $1, $2, $3, $4 / 1024 }' "$dir/time"
}
mkdir "$dir/folder"
both() {
  measure "idevicebackup2, $1" idevicebackup2 backup "$dir/folder"
  measure "snap, $1" "$dir/snap" backup
}
both full
measure "idevicebackup2, nothing changed" idevicebackup2 backup "$dir/folder"
measure "snap, nothing changed" "$dir/snap" backup
for day in $(seq 2 $((${DAYS:-3} + 1))); do
  echo next >&3
  said 1 "it is day $day"
  both "day $day"
done
"$dir/snap" check --read-data >/dev/null
echo violations >&3
said 1 '^none'
