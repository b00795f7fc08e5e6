#!/bin/sh
# Called by test-arm64.sh in a mount namespace of its own. In a Debian 12 root for arm64
#   install    installs the packages, runs fovea, purges them
#   tests      runs the tests that were compiled for it
# Meanwhile the kernel starts arm64 programs by qemu, as it does wherever the package qemu-user-static is set up.
set -eu
kernel=/proc/sys/fs/binfmt_misc
[ -e $kernel/register ] || mount -t binfmt_misc binfmt_misc $kernel
if [ ! -e $kernel/qemu-aarch64 ]; then
	cat /usr/lib/binfmt.d/qemu-aarch64.conf >$kernel/register
	trap 'echo -1 >$kernel/qemu-aarch64' EXIT
fi
root=$PWD/build/root-arm64
if [ ! -f "$root/made" ]; then
	rm -rf "$root"
	mmdebstrap --quiet --mode=root --architectures=arm64 --variant=minbase --include=systemd,ca-certificates,libopencv-core406,libopencv-imgproc406,libopencv-imgcodecs406,libopencv-videoio406 \
		--aptopt='APT::Install-Recommends "false"' bookworm "$root"
	touch "$root/made"
fi
mount -t proc proc "$root/proc"
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"; }
rm -rf "$root/srv"
mkdir -p "$root/srv/lib"
cp "$FOVEA_LIB"/*.so "$FOVEA_LIB"/*.sha256 "$root/srv/lib/"

if [ "$1" = tests ]; then
	cp -r "$FOVEA_TESTS" "$root/srv/tests"
	failed=0
	for room in model store adapt; do
		# Emulated there is no ptrace, so no strace to record what a power cut may lose.
		inside FOVEA_XLA_CPU=/srv/lib/pjrt_cpu.so FOVEA_ONNXRUNTIME=/srv/lib/libonnxruntime.so \
			sh -c "cd /srv/tests/$room && exec ./tests -test.timeout 4h -test.skip PowerCut" || { failed=1; echo "$room: failed"; }
	done
	exit $failed
fi

rm -rf "$root/tmp/debs"
mkdir "$root/tmp/debs"
cp "$(ls -t build/deb/fovea_*_arm64.deb | head -1)" "$(ls -t build/deb/fovea-grab_*_arm64.deb | head -1)" "$root/tmp/debs/"
cp -r "$FOVEA_REFERENCE/model" "$root/srv/model"
mkdir -p "$root/srv/pictures"
cp daemon/testdata/*.png "$root/srv/pictures/" 2>/dev/null || cp docs/page-390.png "$root/srv/pictures/"
inside sh -c 'dpkg -i /tmp/debs/*.deb'
cp "$root"/srv/lib/* "$root/usr/lib/fovea/"
inside fovea --version
printf 'cameras: [{id: pictures, source: /srv/pictures, loop: true}]\n' >"$root/tmp/fovea.yaml"
inside fovea doctor --config /tmp/fovea.yaml
for backend in xla:cpu onnx:cpu go; do
	inside fovea bench --model /srv/model --backend $backend --runs 1 --want logits --json >"$FOVEA_REFERENCE/$backend.arm64.json"
	python3 - "$FOVEA_REFERENCE/go.json" "$FOVEA_REFERENCE/$backend.arm64.json" <<-'PY'
		import json, sys
		here, there = (json.load(open(f)) for f in sys.argv[1:])
		apart = max(abs(a - b) for a, b in zip(here["logits"], there["logits"], strict=True))
		print(f"{there['backend']} on arm64: {len(there['logits'])} logits {apart:.1g} from amd64's, {there['passes'][0]['median_ms']:.0f} ms a pass, emulated")
		sys.exit(not apart < 1e-4)
	PY
done
inside dpkg -P fovea fovea-grab
[ ! -e "$root/usr/bin/fovea" ] && [ ! -e "$root/var/lib/fovea" ] && [ ! -e "$root/etc/fovea" ]
echo "installed, run and purged"
