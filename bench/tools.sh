#!/usr/bin/env bash
# Bench compares snap with other programs. This script lists which of them are
# installed, and says how to get the others. With --install it installs those for
# which Debian and Ubuntu have packages (needs root).
#
#   bench/tools.sh
#   sudo bench/tools.sh --install
set -euo pipefail

# program, package, what bench uses it for
packaged=(
  'restic restic peer'
  'borg borgbackup peer'
  'rsync rsync peer'
  'xz xz-utils floor'
  'xdelta3 xdelta3 floor'
  'b3sum b3sum measure-of-reading'
  'sha256sum coreutils measure-of-reading'
  'xargs findutils measure-of-reading'
)

missing=()
for line in "${packaged[@]}"; do
  read -r program package use <<<"$line"
  if command -v "$program" >/dev/null; then
    printf '%-10s installed   (%s)\n' "$program" "$use"
  else
    printf '%-10s missing     (%s): apt-get install %s\n' "$program" "$use" "$package"
    missing+=("$package")
  fi
done

cat <<'TEXT'

restic     Debian's version may be years old. A current one, without root:
             git clone https://github.com/restic/restic && cd restic
             go run build.go
           then: go run ./bench -restic PATH/TO/restic
kopia      has no Debian package. From its releases page
             https://github.com/kopia/kopia/releases
           or from source (without its web interface):
             git clone https://github.com/kopia/kopia && cd kopia
             CGO_ENABLED=0 go build -tags nohtmlui -o kopia .
           then: go run ./bench -kopia PATH/TO/kopia
macOS      brew install restic borgbackup kopia rsync xz xdelta b3sum coreutils
           (the rsync of macOS is another program without all of its options)
TEXT

if [ "${1:-}" = --install ] && [ ${#missing[@]} -gt 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
fi
