#!/bin/sh
# Tries Fovea on an emulated arm64: builds the packages, runs the tests of the rooms that compute and store, then
# installs the packages in a Debian 12 root and runs fovea there. Needs root.
#   tools/test-arm64.sh [build|tests|root]...      default: all three
# It takes half an hour on two cores; XLA compiles under emulation.
set -eu
cd "$(dirname "$0")/.."
go=${GO:-$(tools/go.sh)}
tools/packages.sh qemu-user-static mmdebstrap util-linux >&2
plugin=$PWD/build/lib/fovea-arm64/pjrt_cpu.so
tools/wheel.sh xla-cpu-pjrt==0.0.1 8f613be6e891858f40d64f9799319502fff42689661944fc18a6ffd8210b30c9 \
	xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so "$plugin" --only-binary=:all: --platform manylinux_2_27_aarch64

for part in ${*:-build tests root}; do
	case $part in
	build)
		GO="$go" tools/deb.sh arm64 fovea fovea-grab
		;;
	tests)
		# model's hold its logits and gradients to the references that amd64 is held to.
		old=$(tools/sysroot.sh arm64 bullseye libc6-dev)
		root=$(tools/sysroot.sh arm64 bookworm libc6-dev libstdc++-12-dev libopencv-core-dev libopencv-imgproc-dev libopencv-imgcodecs-dev libopencv-videoio-dev)
		CC="$old/cc" CGO_ENABLED=1 GOARCH=arm64 FOVEA_XLA_CPU="$plugin" "$go" test -trimpath -p 1 -timeout 2h \
			-exec "qemu-aarch64-static -L $root" ./model ./store ./adapt
		;;
	root)
		FOVEA_PLUGIN="$plugin" unshare --mount tools/root-arm64.sh
		;;
	esac
done
