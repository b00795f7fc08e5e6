#!/bin/sh
# Makes a root of Debian packages to link against, and compilers that use it; prints its folder.
#   tools/sysroot.sh ARCH SUITE PACKAGE...       then CC=FOLDER/cc CXX=FOLDER/c++
# ARCH is amd64 or arm64. The mirror is the machine's own. An older SUITE asks for less of the device: bullseye has
# glibc 2.31.
set -eu
arch=$1 suite=$2
shift 2
case $arch in
amd64) triple=x86_64-linux-gnu compiler=g++-x86-64-linux-gnu ;;
arm64) triple=aarch64-linux-gnu compiler=g++-aarch64-linux-gnu ;;
*) echo "no compiler is known for $arch" >&2; exit 1 ;;
esac
cd "$(dirname "$0")/.."
root=$PWD/build/sysroot/$suite-$arch
list=$*
if [ "$(cat "$root/packages" 2>/dev/null)" = "$list" ]; then
	echo "$root"
	exit 0
fi
[ "$arch" != "$(dpkg --print-architecture)" ] || compiler=g++
tools/packages.sh mmdebstrap "$compiler" >&2
mirror=$(sed -n 's/^URIs: *//p; s/^deb  *\(\[[^]]*\] *\)\?\(http[^ ]*\).*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v security | head -1)
[ -n "$mirror" ] || { echo "apt's sources of this machine name no mirror: add one to /etc/apt/sources.list" >&2; exit 1; }
rm -rf "$root"
mkdir -p "$(dirname "$root")"
echo "making $root" >&2
include=$(echo "$list" | tr ' ' ',')
mmdebstrap --quiet --architectures="$arch" --variant=extract --include="$include" \
	--aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' \
	"$suite" "$root" "$mirror" >&2
# Absolute links would lead out of the root.
find "$root/lib" "$root/usr/lib" -type l -lname '/*' | while read -r link; do
	ln -sfr "$root$(readlink "$link")" "$link"
done
# The compiler would rather take its own libc than the root's, for all that --sysroot says.
# compute-onnx asks for RTLD_DEFAULT, which Debian 11 has for GNU sources alone.
for language in cc:gcc c++:g++; do
	cat >"$root/${language%:*}" <<-END
		#!/bin/sh
		exec $triple-${language#*:} --sysroot=$root -B$root/usr/lib/$triple/ -L$root/usr/lib/$triple -L$root/lib/$triple \\
			-isystem $root/usr/include/$triple -isystem $root/usr/include -D_GNU_SOURCE "\$@"
	END
	chmod +x "$root/${language%:*}"
done
echo "$list" >"$root/packages"
echo "$root"
