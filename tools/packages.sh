#!/bin/sh
# Installs the Debian packages named that are not there; asks for nothing.
#   tools/packages.sh PACKAGE...
set -eu
missing=
for p; do
	dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
root=
if [ "$(id -u)" != 0 ]; then
	root=sudo
	command -v sudo >/dev/null || { echo "not root and no sudo: run as root, or install yourself:$missing" >&2; exit 1; }
fi
echo "installing:$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { $root apt-get update && $root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
	tail -20 "$log" >&2
	echo "could not install:$missing" >&2
	exit 1
fi
