# The one place to look for a command; `make` alone prints them. Every target does its own set-up.
SHELL := /bin/bash
.DEFAULT_GOAL := help

NODE_ARCH := $(subst aarch64,arm64,$(subst x86_64,x64,$(shell uname -m)))
RUNTIME := plugin/runtime/node_modules
export PATH := $(CURDIR)/$(RUNTIME)/node-linux-$(NODE_ARCH)/bin:$(CURDIR)/node_modules/.bin:$(PATH)

# 22.13 is the first Node with node:sqlite unflagged; below that the pinned one of plugin/runtime runs everything.
NODE_IS_OLD := $(shell node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 22 || (a == 22 && b >= 13) ? 0 : 1)' 2>/dev/null || echo yes)
READY := $(if $(NODE_IS_OLD),$(RUNTIME)/.package-lock.json) node_modules/.package-lock.json

.PHONY: help build check unit test-netns test-docker test demo bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

build: $(READY) ## bundle dist/tsmacvlan.js and bin/tsmacvlan, its launcher
	esbuild src/tsmacvlan.ts --bundle --platform=node --target=node22 --format=esm --external:koffi --log-level=warning \
	  --banner:js="import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" \
	  --outfile=dist/tsmacvlan.js
	chmod +x dist/tsmacvlan.js
	install -D plugin/launcher.sh bin/tsmacvlan

check: $(READY) ## types, lint and format
	tsc
	eslint src test
	biome format --reporter=summary

unit: $(READY) ## tests without root
	node test/run.ts unit

test-netns: $(READY) ## tests on real links, in network namespaces of their own (root)
	node test/run.ts netns

test-docker: build ## tests on real Docker engines, in namespaces of their own (root)
	node test/run.ts docker

test: build ## every test
	node test/run.ts unit netns docker vlan swarm

demo: build ## two Docker hosts on one LAN, shown step by step (root)
	node test/demo.ts

bench: build ## the built-in macvlan driver and tsmacvlan, measured side by side (root)
	node test/bench.ts

clean: ## remove everything that make made
	rm -rf dist bin .lab bench.json node_modules $(RUNTIME)

$(RUNTIME)/.package-lock.json: plugin/runtime/package-lock.json
	npm ci --prefix plugin/runtime --no-audit --no-fund
	touch $@

node_modules/.package-lock.json: package-lock.json
	npm ci --no-audit --no-fund
	touch $@
