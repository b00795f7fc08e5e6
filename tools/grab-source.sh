#!/bin/sh
# Writes a folder from which fovea-grab can be built without a network: its packages and what they import.
#   tools/grab-source.sh FOLDER
set -eu
to=$(realpath -m "$1")
cd "$(dirname "$0")/.."
go=${GO:-$(tools/go.sh)}
rm -rf "$to"
mkdir -p "$to/capture"
cp -r capture/grab capture/internal "$to/capture/"
cp LICENSE "$to/"
find "$to" -name '*_test.go' -delete
{
	sed -n '1,/^go /p' go.mod
	echo 'require ('
	grep -E '^	(gocv\.io/x/gocv|golang\.org/x/sys) ' go.mod
	echo ')'
} >"$to/go.mod"
cp go.sum "$to/"
cd "$to"
GOFLAGS=-mod=mod "$go" mod vendor
rm go.sum.orig 2>/dev/null || true
