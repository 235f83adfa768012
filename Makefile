# fwd: every target does all the set-up it needs on a fresh Debian or Ubuntu.
#
#   make demo    the seed's walk on real traffic: curl in a pod on node1, nginx on node2
#   make test    the whole suite, then parts without offloads, then all on an ASan+UBSan build,
#                then vmtest
#   make vmtest  the package on two virtual machines with systemd, by the README's own commands
#   make asan    only the sanitised half     make lint   only the static checks
#   make plain   the daemons' tests without offloads, and without USO alone
#   make bench   side by side with the kernel's VXLAN, Open vSwitch and fastd: docs/benchmarks.md;
#                QUICK=1 for under three minutes, ARGS=--help for what can be chosen
#   make soak    half an hour of pods that come and go, reloads and traffic; MINUTES=30
#   make clean   what the targets above made
#   make deb     the Debian package, in dist/
#   make fuzz    libFuzzer on the C core, FUZZ_SECONDS=60 for each of its targets
#
# demo, test, plain, soak and vmtest need root (namespaces, TAP devices, an image); the others run as
# anyone once the OS packages are there, bench then without its networks. PYTHON=... picks a new
# .venv's interpreter.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help

BIN := .venv/bin
CSRC := $(shell find csrc -name '*.[ch]' -o -name '*.def' -o -name '*.py')
# What the build, the demo and the netns tests call. libasan and libubsan come with gcc.
PACKAGES := python3-venv python3-dev gcc libc6-dev iproute2 iputils-ping curl nginx-light iperf3 nftables
# What the tests of units, man pages and the Debian package call.
ifneq ($(filter test,$(MAKECMDGOALS)),)
PACKAGES += systemd groff-base lintian mmdebstrap
endif

# What makes and boots the virtual machines; KVM is used where it works, and not needed.
ifneq ($(filter vmtest test,$(MAKECMDGOALS)),)
PACKAGES += mmdebstrap e2fsprogs util-linux qemu-system-x86
endif

export PIP_RETRIES := 10
export PIP_DEFAULT_TIMEOUT := 60
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export DEBIAN_FRONTEND := noninteractive

# Only for those who fuzz; the suite does so for a few seconds.
ifneq ($(filter fuzz test,$(MAKECMDGOALS)),)
PACKAGES += clang libclang-rt-dev
endif
FUZZ_SECONDS ?= 60

# What the benchmarks measure with, and against. fastd and openvswitch-switch are never started as
# services: each bed runs its own.
ifneq ($(filter bench,$(MAKECMDGOALS)),)
PACKAGES += sockperf wrk openvswitch-switch fastd
endif

rooted := $(filter demo test plain soak vmtest,$(MAKECMDGOALS))
ifneq ($(rooted),)
ifneq ($(shell id -u),0)
$(error namespaces and TAP devices need root, run: sudo make $(rooted))
endif
endif

.PHONY: help demo test plain asan lint bench deb vmtest fuzz soak clean packages setup

help:
	@sed -n '/^#/!q; s/^# \?//p' Makefile

# make demo, then look around:  make demo ARGS=--keep
demo: setup
	@$(BIN)/fwd demo $(ARGS)

test: setup
	@$(BIN)/python csrc/gen.py --check
	@$(BIN)/python -m pytest $(ARGS)
	@$(MAKE) --no-print-directory plain asan
	@$(MAKE) --no-print-directory vmtest ARGS=--where-possible

# The daemons' tests again: without offloads, and with USO alone missing, as before Linux 6.2.
plain: setup
	@for switches in '{csum: false, tso: false, uso: false, udp_segment: false, udp_gro: false, merge: false}' \
	    '{uso: false}'; do \
	    echo "with features.offload: $$switches"; \
	    FWD_FEATURES_OFFLOAD="$$switches" $(BIN)/python -m pytest tests/netns \
	        --ignore=tests/netns/test_offload.py -p no:cacheprovider $(ARGS); \
	done

# The suite again, daemons and commands included, on a sanitised build of the same unity.c; only the
# house rules would prove nothing more.
asan: setup .build/asan/stamp
	@so=$$(echo .build/asan/_fwd*.so); \
	FWD_TEST_EXTENSION="$$PWD/$$so" PYTHONPATH="$$PWD/tests/sanitized" PYTHONMALLOC=malloc \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	FWD_TEST_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	$(BIN)/python -m pytest --ignore=tests/test_house.py -p no:cacheprovider $(ARGS)

lint: setup
	@$(BIN)/python -m pytest tests/test_house.py -q

bench: setup .venv/installed-bench
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(ARGS)

# Debian's own tools make it; the wheels of requirements.lock come from the registry once.
deb: setup
	@$(BIN)/python systemd/debian/build.py

MINUTES ?= 30
soak: setup
	@$(BIN)/python benchmarks/soak.py --minutes $(MINUTES) $(ARGS)

# Table, results, console logs and journals: .build/vmtest/run. The image is made once.
vmtest: setup
	@package=$$($(BIN)/python systemd/debian/build.py | tail -n 1); \
	$(BIN)/python -m tests.vm --package "$$package" $(ARGS)

fuzz: setup
	@$(BIN)/python tests/fuzz/campaign.py --seconds $(FUZZ_SECONDS) $(ARGS)

clean:
	rm -rf .build build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
	    .import_linter_cache fwd/datapath/_fwd*.so
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# ---- set-up ----

setup: packages .build/extension

# Missing packages only, so that a host without network access still works once they are there.
# Nothing may start a service: policy-rc.d says so while apt runs, and what this installed is not
# left enabled.
packages:
	@missing=; \
	for name in $(PACKAGES); do \
	    [ "$$(dpkg-query -W -f '$${db:Status-Status}' "$$name" 2>/dev/null || true)" = installed ] \
	        || missing="$$missing $$name"; \
	done; \
	[ -z "$$missing" ] && exit 0; \
	if ! command -v apt-get >/dev/null; then \
	    echo "needs the equivalent of these Debian packages:$$missing" >&2; exit 2; \
	fi; \
	if [ "$$(id -u)" != 0 ]; then echo "run: sudo apt-get install$$missing"; exit 2; fi; \
	echo "installing:$$missing"; \
	policy=/usr/sbin/policy-rc.d; \
	if [ ! -e $$policy ]; then \
	    trap 'rm -f '$$policy EXIT; printf '#!/bin/sh\nexit 101\n' >$$policy; chmod 755 $$policy; \
	fi; \
	apt-get -o Acquire::Retries=5 -qq update; \
	apt-get -o Acquire::Retries=5 -o Dpkg::Options::=--force-confold -qq -y \
	    --no-install-recommends install $$missing </dev/null; \
	for unit in nginx openvswitch-switch fastd; do \
	    if [[ "$$missing" == *$$unit* ]] && command -v systemctl >/dev/null; then \
	        systemctl disable $$unit >/dev/null 2>&1 || true; \
	    fi; \
	done

# An interpreter that can make a venv and compile against its own headers.
.venv/bin/python: | packages
	@for python in $(PYTHON) python3 /usr/bin/python3; do \
	    "$$python" -c 'import ensurepip, os, sys, sysconfig, venv; \
	        sys.exit(sys.version_info < (3, 11) or not os.path.exists( \
	            os.path.join(sysconfig.get_path("include"), "Python.h")))' 2>/dev/null || continue; \
	    echo "making .venv with $$python"; \
	    "$$python" -m venv .venv; exit 0; \
	done; \
	echo "no Python >= 3.11 with venv and headers: install python3-venv and python3-dev" >&2; exit 2

.venv/installed: pyproject.toml | .venv/bin/python
	@echo "installing Python packages into .venv"; \
	for try in 1 2 3; do \
	    $(BIN)/python -m pip install -qq -e '.[dev]' && break; \
	    [ $$try != 3 ] || exit 1; sleep 5; \
	done; \
	touch $@

.venv/installed-bench: .venv/installed
	@$(BIN)/python -m pip install -qq -e '.[bench]'; touch $@

# pip builds the extension too; here it is rebuilt when csrc changed after that.
.build/extension: $(CSRC) .venv/installed
	@mkdir -p .build; fresh=; \
	for so in fwd/datapath/_fwd*.so; do \
	    [ -e "$$so" ] && [ -z "$$(find $(CSRC) -newer "$$so")" ] && fresh=1 || rm -f "$$so"; \
	done; \
	[ -n "$$fresh" ] || $(BIN)/python csrc/build_ext.py >/dev/null; \
	touch $@

.build/asan/stamp: $(CSRC) .venv/installed
	@mkdir -p .build/asan; $(BIN)/python csrc/build_ext.py --asan >/dev/null; touch $@
