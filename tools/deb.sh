#!/bin/sh
# Builds the Debian packages into build/deb.
#   tools/deb.sh [ARCH] [PACKAGE...]      ARCH amd64 or arm64, default: this machine's; PACKAGE default: all three
# fovea for arm64 is linked against Debian 11, so that it asks for no glibc above 2.31 and starts on JetPack 5 too;
# fovea-grab is built for Debian 12, whose OpenCV it links.
set -eu
cd "$(dirname "$0")/.."
here=$(dpkg --print-architecture)
arch=${1:-$here}
[ $# = 0 ] || shift
packages=${*:-fovea fovea-grab fovea-grab-source}
go=${GO:-$(tools/go.sh)}
version=$(tools/version.sh)
out=build/package/$arch
mkdir -p "$out" build/deb
export CGO_ENABLED=1 GOARCH="$arch" GOOS=linux
unset GOEXPERIMENT
[ "$arch" != amd64 ] || export GOEXPERIMENT=simd
stamp="-s -w -X main.release=$version"

for package in $packages; do
	case $package in
	fovea)
		(
			if [ "$arch" = arm64 ]; then
				root=$(tools/sysroot.sh arm64 bullseye libc6-dev)
				export CC="$root/cc"
			fi
			"$go" build -trimpath -ldflags "$stamp" -o "$out/fovea" ./daemon
		)
		GOARCH= "$go" run -trimpath -ldflags "$stamp" ./daemon man | gzip -9n >"$out/fovea.1.gz"
		;;
	fovea-grab)
		(
			export PKG_CONFIG_PATH="$PWD/capture/grab/opencv"
			if [ "$arch" != "$here" ]; then
				root=$(tools/sysroot.sh "$arch" bookworm libc6-dev libstdc++-12-dev libopencv-core-dev libopencv-imgproc-dev libopencv-imgcodecs-dev libopencv-videoio-dev)
				export CC="$root/cc" CXX="$root/c++" PKG_CONFIG_SYSROOT_DIR= CGO_CXXFLAGS="-I$root/usr/include/opencv4"
				export CGO_LDFLAGS="-Wl,--allow-shlib-undefined" # OpenCV's own needs are the device's to have
			fi
			"$go" build -trimpath -ldflags "-s -w" -tags "gocv_specific_modules gocv_videoio" -o "$out/fovea-grab" ./capture/grab
		)
		;;
	fovea-grab-source)
		GOARCH= GO="$go" tools/grab-source.sh "$out/grab-source"
		;;
	esac
done
ceiling=
[ "$arch" != arm64 ] || ceiling=2.31
unset GOARCH GOOS GOEXPERIMENT
for package in $packages; do
	glibc=
	[ "$package" != fovea ] || glibc=$ceiling
	(cd tools/package && "$go" run . -root ../.. -arch "$arch" -version "$version" -build "$out" -out build/deb -glibc "$glibc" "$package")
done
