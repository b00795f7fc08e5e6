#!/bin/sh
# Prints the version of this commit as Debian orders it: 1.2.3, 1.2.3+4.gabcdef (four commits later), or, where no tag
# exists yet, 0~DATE.COMMIT.
set -eu
cd "$(dirname "$0")/.."
if tag=$(git describe --tags --match 'v[0-9]*' 2>/dev/null); then
	echo "${tag#v}" | sed 's/-\([0-9]*\)-g/+\1.g/; s/-\(rc\|beta\|alpha\)/~\1/'
else
	git log -1 --date=format:%Y%m%d%H%M --format='0~%cd.%h'
fi
