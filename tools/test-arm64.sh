#!/bin/sh
# Tries Fovea on an emulated arm64, in a Debian 12 root of its own: builds the packages, installs them there, runs fovea,
# and compares its logits with this machine's; then runs the tests of the rooms that compute and store. Needs root.
#   tools/test-arm64.sh [build|install|tests]...      default: all three
# XLA compiles under emulation: a nightly job of the better part of an hour.
set -eu
cd "$(dirname "$0")/.."
go=${GO:-$(tools/go.sh)}
tools/packages.sh qemu-user-static mmdebstrap arch-test util-linux >&2
lib=$PWD/build/lib/fovea-arm64
tools/wheel.sh xla-cpu-pjrt==0.0.1 8f613be6e891858f40d64f9799319502fff42689661944fc18a6ffd8210b30c9 \
	xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so "$lib/pjrt_cpu.so" --only-binary=:all: --platform manylinux_2_27_aarch64
tools/wheel.sh onnxruntime==1.32.0 e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054 \
	onnxruntime/capi/libonnxruntime.so.1.32.0 "$lib/libonnxruntime.so" --only-binary=:all: --platform manylinux_2_28_aarch64 \
	--implementation cp --python-version 3.12

for part in ${*:-build install tests}; do
	case $part in
	build)
		GO="$go" tools/deb.sh arm64
		;;
	install)
		# A ViT-S/16 of random weights, the same file on both machines.
		here=build/arm64-reference
		rm -rf "$here"
		mkdir -p "$here"
		"$go" run ./daemon bench --backend go --runs 1 --want logits --save "$here/model" --json >"$here/go.json"
		FOVEA_LIB="$lib" FOVEA_REFERENCE="$PWD/$here" unshare --mount tools/root-arm64.sh install
		;;
	tests)
		# model's hold its logits and gradients to the references that amd64 is held to.
		old=$(tools/sysroot.sh arm64 bullseye libc6-dev)
		tests=build/arm64-tests
		rm -rf "$tests"
		for room in model store adapt; do
			mkdir -p "$tests/$room"
			GOEXPERIMENT= CC="$old/cc" CGO_ENABLED=1 GOARCH=arm64 "$go" test -trimpath -c -o "$tests/$room/tests" "./$room"
			[ ! -d "$room/testdata" ] || cp -r "$room/testdata" "$tests/$room/"
		done
		FOVEA_LIB="$lib" FOVEA_TESTS="$PWD/$tests" unshare --mount tools/root-arm64.sh tests
		;;
	esac
done
