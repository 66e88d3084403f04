# SPDX-License-Identifier: MIT
# Each target does its own set-up and can be run again; see CONTRIBUTING.md.
.DEFAULT_GOAL := help
.PHONY: help setup build demo test lint format clean

# release, or ci (warnings are errors); see CMakePresets.json.
PRESET ?= release
JOBS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)

help: ## print this
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | \
	  awk -F '|' '{ printf "%-14s %s\n", $$1, $$2 }'

setup: ## install system packages and make .venv
	@tools/setup.sh

build: setup ## build the program, build/bin/zmlx, and the Python package
	@tools/build.sh $(PRESET) $(JOBS) zmlx_cli zmlx_python

demo: build ## generate text, then validate and time the demo model
	@tools/demo.sh

test: setup ## build and run every test
	@tools/build.sh $(PRESET) $(JOBS) all
	@PATH="$(CURDIR)/.venv/bin:$$PATH" python tools/run_tests.py build

lint: setup ## check format, layers and the house rules
	@tools/lint.sh

format: setup ## format the sources in place
	@tools/lint.sh --fix

clean: ## remove what was built; .venv stays
	rm -rf build build-dev build-asan build-tsan
