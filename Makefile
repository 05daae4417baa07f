# The one place to look for a command; `make` alone prints them. Every target does its own set-up.
SHELL := /bin/bash
.DEFAULT_GOAL := help

NODE_ARCH := $(subst aarch64,arm64,$(subst x86_64,x64,$(shell uname -m)))
RUNTIME := plugin/runtime/node_modules
export PATH := $(CURDIR)/$(RUNTIME)/node-linux-$(NODE_ARCH)/bin:$(CURDIR)/node_modules/.bin:$(PATH)

# 22.18 is the first Node that runs TypeScript without a flag and whose node:sqlite takes a URL; below it the pinned one of
# plugin/runtime runs everything.
NODE_IS_OLD := $(shell node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 22 || (a == 22 && b >= 18) ? 0 : 1)' 2>/dev/null || echo yes)
PINNED := $(RUNTIME)/.package-lock.json
# Spelling and the site, for make check and make site; in a lockfile of their own, because nothing that is built needs them.
DOCUMENT_TOOLS := site/node_modules/.package-lock.json
READY := $(if $(NODE_IS_OLD),$(PINNED)) node_modules/.package-lock.json

.PHONY: help build check watch unit test-netns test-docker test durations lifecycle parity sim sim-reverted kills crashes backups claims owners scale fuzz soak outages reboots squatters races renewals swarm-long demo screenshots bench clean tables proto site single plugin plugin-enable push install uninstall deb release sign

# The managed plugin's name on this engine. With any tag but `latest`, `-d tsmacvlan` works too (docs/install.md).
PLUGIN ?= tsmacvlan:lan
PREFIX ?= /usr/local
RELEASE ?= release
# Of the key that signs releases.
PUBLIC ?= tsmacvlan.pub
VERSION = $(shell node -p 'require("./package.json").version')
LEVELS := unit sim package netns docker install vlan swarm
UNIT := $(PREFIX)/lib/systemd/system/tsmacvlan.service

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

# Without spaces and comments V8 reads and keeps a third less. Names stay, for stack traces. CommonJS, because an import of node:http
# looks at all that it exports, of which WebSocket loads a whole client (lib/internal/bootstrap/realm.js, getESMFacade). Left out is
# what no call reaches and every start would load: code pages, file types and query strings of express, and winston's colours for developers.
# docs/dependencies.md says what each of these is worth.
BUNDLE = esbuild src/tsmacvlan.ts --bundle --platform=node --target=node22 --format=cjs --log-level=warning \
	  --minify-whitespace --minify-syntax --line-limit=120 \
	  --external:../encodings --alias:mime-db=./plugin/empty.json --alias:qs=./plugin/empty.json --define:process.env.NODE_ENV=\"production\"

build: $(READY) ## bundle dist/tsmacvlan.cjs and bin/tsmacvlan, its launcher
	mkdir -p dist
	node plugin/page.ts dist/page.cjs
	$(BUNDLE) --external:koffi --banner:js="$$(esbuild plugin/oldnode.js --minify-whitespace)" \
	  --outfile=dist/tsmacvlan.cjs --metafile=dist/contents.json
	$(BUNDLE) --alias:koffi=./plugin/addon.ts --outfile=dist/single.cjs
	chmod +x dist/tsmacvlan.cjs
	node plugin/contents.ts dist/contents.json > dist/LICENSES.txt
	install -D plugin/launcher.sh bin/tsmacvlan

# What was judged before is kept in node_modules/.cache, which make clean removes. A file whose text is as it was is not linted
# again, even when a type that it takes from another file has changed: CI and make release begin without a cache.
check: $(READY) $(DOCUMENT_TOOLS) ## types, lint, format, spelling, and the links of the documents
	tsc
	tsc --project src/page
	eslint --cache --cache-strategy content --cache-location node_modules/.cache/eslint src test plugin/*.ts
	biome format --reporter=summary
	site/node_modules/.bin/cspell --no-progress --no-summary --cache --cache-strategy content --cache-location node_modules/.cache/cspell
	node --test --test-reporter=dot test/unit/docs.test.ts

watch: $(READY) ## types and unit tests again whenever a source file changes (Ctrl-C ends it)
	node test/watch.ts

unit: build ## tests without root
	node test/run.ts unit

test-netns: build ## tests on real links, in network namespaces of their own (root)
	node test/run.ts netns

test-docker: build $(PINNED) ## tests on real Docker engines, in namespaces of their own (root)
	node test/run.ts docker

test: build $(PINNED) ## every test
	node test/run.ts $(LEVELS)

sim: $(READY) ## MINUTES=10 of hosts, engines and strangers on a simulated LAN from SEED=1 on, in JOBS=2 processes; KIND=life|etcd|swarm; STORY=7 tells one seed
	MINUTES=$(or $(MINUTES),10) SEED=$(or $(SEED),1) KIND='$(KIND)' STORY='$(STORY)' JOBS=$(or $(JOBS),2) \
		node test/sim/$(if $(STORY),main,jobs).ts

sim-reverted: $(READY) ## mends taken back in copies of the sources, each to be found by its seed; ROWS=L1,S2 for some
	node test/sim/reverted.ts

kills: build ## KILLS=500 times kill -9 of the daemon under load (root); SEED= repeats a run
	FILE_MINUTES=60 KILLS=$(or $(KILLS),500) SEED=$(or $(SEED),$$RANDOM) node test/run.ts test/netns/kill.test.ts

crashes: $(READY) ## kill -9 after every single step of every call; writes the table in docs/reliability.md (root)
	FILE_MINUTES=30 CRASHES=1 node test/run.ts test/netns/crash-points.test.ts
	FILE_MINUTES=30 CRASHES=1 node test/run.ts test/vlan/crash-points.test.ts

fuzz: $(READY) ## COUNT=100000 hostile requests (root); SEED= repeats a run
	FILE_MINUTES=60 COUNT=$(or $(COUNT),100000) SEED=$(or $(SEED),$$RANDOM) node test/run.ts test/netns/fuzz.test.ts

soak: build $(PINNED) ## MINUTES=30 of random lives and faults on three engines (root); SEED= repeats a run
	FILE_MINUTES=$$(($(or $(MINUTES),30) + 30)) MINUTES=$(or $(MINUTES),30) SEED=$(or $(SEED),$$RANDOM) node test/run.ts test/docker/soak.test.ts

lifecycle: build $(PINNED) ## CYCLES=200 networks and containers that come and go at once, on each of two engines (root)
	CYCLES=$(or $(CYCLES),200) node test/run.ts test/docker/lifecycle.test.ts

parity: build $(PINNED) ## the built-in driver and tsmacvlan play the same scenarios on ENGINES=20.10.24,26.1.5,28.5.2 (root)
	FILE_MINUTES=40 ENGINES=$(or $(ENGINES),20.10.24,26.1.5,28.5.2) node test/run.ts test/docker/parity.test.ts

squatters: export ROUNDS := $(or $(ROUNDS),100)
squatters: export ATTACK_SECONDS := $(or $(ATTACK_SECONDS),60)
squatters: build $(PINNED) ## ROUNDS=100 strangers of each kind on the LAN, and twenty times as many starts without any; KIND="before Join": of the takers only those (root)
	FILE_MINUTES=90 node test/run.ts test/netns/squatters.test.ts
	FILE_MINUTES=90 node test/run.ts test/netns/attackers.test.ts
	FILE_MINUTES=90 node test/run.ts test/netns/takers.test.ts
	FILE_MINUTES=90 node test/run.ts test/docker/takers.test.ts

races: build $(PINNED) ## RACES=200 starts at the same time on two hosts, on each of two engines (root)
	FILE_MINUTES=60 RACES=$(or $(RACES),200) node test/run.ts test/docker/conflicts.test.ts

renewals: build $(PINNED) ## MINUTES=60 of DHCP leases of 20 s with CONTAINERS=20 (root)
	FILE_MINUTES=$$(($(or $(MINUTES),60) + 15)) DHCP_MINUTES=$(or $(MINUTES),60) DHCP_CONTAINERS=$(or $(CONTAINERS),20) \
	  node test/run.ts test/netns/dhcp-renewals.test.ts

swarm-long: build $(PINNED) ## a service on a swarm: 30 replicas, then 5 and 60 by turns, ROUNDS=10 times (root)
	ROUNDS=$(or $(ROUNDS),10) MANY=$(or $(MANY),60) FILE_MINUTES=90 node test/run.ts test/swarm/failover.test.ts

outages: build $(PINNED) ## the systemd service: KILLS=20 times kill -9, its state in use and its disk full for OUTAGE_SECONDS=60 each (root)
	KILLS=$(or $(KILLS),20) OUTAGE_SECONDS=$(or $(OUTAGE_SECONDS),60) node test/run.ts test/docker/service.test.ts

reboots: build $(PINNED) ## COUNT=20 boots of a host, each but the last ended by a power cut (root)
	FILE_MINUTES=120 BOOTS=$(or $(COUNT),20) node test/run.ts test/vlan/reboot.test.ts

demo: build ## two Docker hosts on one LAN, shown step by step (root)
	node test/demo.ts

screenshots: build $(PINNED) ## docs/images/: the page of tsmacvlan map in a browser, light and dark (root)
	SCREENSHOTS=docs/images node test/run.ts test/docker/page.test.ts

backups: build ## ROUNDS=50 of backup, wipe and restore beside running containers, with kill -9 at random moments (root); SEED= repeats a run
	FILE_MINUTES=90 ROUNDS=$(or $(ROUNDS),50) SEED=$(or $(SEED),$$RANDOM) node test/run.ts test/netns/backup.test.ts

claims: $(READY) ## CLAIMS=2000 addresses kept by each of four processes while members of etcd are killed at random (root)
	FILE_MINUTES=60 CLAIMS=$(or $(CLAIMS),2000) node test/run.ts test/netns/etcd-contention.test.ts

owners: build $(PINNED) ## MINUTES=30 of freezes, kills, cuts, restores, renames and rotations on four daemons and three members of etcd (root); SEED= repeats a run
	FILE_MINUTES=$$(($(or $(MINUTES),30) + 20)) MINUTES=$(or $(MINUTES),30) SEED=$(or $(SEED),$$RANDOM) node test/run.ts test/netns/owners-drill.test.ts

durations: build $(PINNED) ## every test, and the table of durations that the runner goes by (root)
	DURATIONS=yes node test/run.ts $(LEVELS)

scale: build ## hosts that share addresses through etcd, measured: clients, leases, listeners (root)
	node test/scale.ts

bench: build ## the built-in macvlan driver, tsmacvlan and the least a plugin costs, side by side (root); ROWS= a part of a row's name, ENGINES= ROUNDS=
	node test/bench.ts

tables: $(READY) ## config.json, docs/reference.md, messages.md and differences.md, completion and man page, from the tables of the sources
	node plugin/manifest.ts > config.json
	node plugin/reference.ts > docs/reference.md
	node plugin/messages.ts > docs/messages.md
	node plugin/shell.ts bash > plugin/shell/tsmacvlan.bash
	node plugin/shell.ts zsh > plugin/shell/_tsmacvlan
	node plugin/shell.ts man > plugin/shell/tsmacvlan.8
	node test/parity/page.ts > docs/differences.md

proto: $(READY) ## src/store/etcd/*_pb.ts from its .proto files; the compiler comes from npm for this alone
	cd src/store/etcd && npm exec --yes --ignore-scripts --package=@bufbuild/buf@1.75.0 --package=@bufbuild/protoc-gen-es@2.17.0 -- buf generate . \
	  --template '{"version":"v2","plugins":[{"local":"protoc-gen-es","out":".","opt":["target=ts","erasable_syntax=true","import_extension=ts"]}]}'

plugin: build $(PINNED) ## plugin/config.json and plugin/rootfs/, for docker plugin create
	node plugin/rootfs.ts plugin/rootfs
	install -m 644 config.json plugin/config.json

plugin-enable: plugin ## the managed plugin on this machine's engine, as PLUGIN=tsmacvlan:lan
	@. plugin/occupied.sh; occupied plugin
	docker plugin create $(PLUGIN) plugin
	docker plugin enable $(PLUGIN)
	@echo "for the command tsmacvlan: sudo ln -sf $$(docker info --format '{{.DockerRootDir}}')/plugins/$$(docker plugin inspect --format '{{.ID}}' $(PLUGIN))/rootfs/app/tsmacvlan /usr/local/bin/tsmacvlan"

push: plugin ## the managed plugin to a registry: make push IMAGE=registry.example/tsmacvlan:0.1.0
	@test -n "$(IMAGE)" || { echo 'no target given; use make push IMAGE=REGISTRY/tsmacvlan:VERSION' >&2; exit 2; }
	docker plugin create $(IMAGE) plugin
	docker plugin push $(IMAGE)
	docker plugin rm $(IMAGE)

# Relative links stay as they are in the checkout; what is no page is served beside them.
site: $(DOCUMENT_TOOLS) ## dist/site/: README and docs/ as a web site with a search, for any web server
	rm -rf site/pages dist/site
	mkdir -p site/pages/public/docs
	cp -r --parents README.md CONTRIBUTING.md CHANGELOG.md test/README.md test/sim/README.md docs site/pages
	mv site/pages/docs/examples site/pages/public/docs/
	site/node_modules/.bin/vitepress build site

single: build $(PINNED) ## dist/tsmacvlan, the one file: command and daemon with their Node
	node plugin/single.ts dist/tsmacvlan

# A directory may have a space in its name: the shell gets them as variables.
install uninstall: export INTO := $(DESTDIR)
install uninstall: export BELOW := $(DESTDIR)$(PREFIX)
install uninstall: export SERVICE_UNIT := $(DESTDIR)$(UNIT)
# Where versions before the one file had their program, and where systemctl edit --full writes.
install uninstall: export OLD_PROGRAM := $(DESTDIR)$(PREFIX)/lib/tsmacvlan
install uninstall: export OWN_UNIT := $(DESTDIR)/etc/systemd/system/tsmacvlan.service

install: build $(PINNED) ## the one file as a systemd service (root; PREFIX=/usr/local DESTDIR=)
	$(if $(DESTDIR),,@. plugin/occupied.sh; occupied make)
	@. plugin/units.sh; keep_unit "$$SERVICE_UNIT" $(PREFIX)
	node plugin/installation.ts "$$INTO" $(PREFIX)
	@$(if $(DESTDIR),,. plugin/units.sh; keep_unit "$$OWN_UNIT")
	$(if $(DESTDIR),,rm -rf "$$OLD_PROGRAM" && systemctl daemon-reload && systemctl enable --force $(UNIT) && systemctl restart tsmacvlan)

uninstall: ## stop the service and remove what make install wrote, if it has no networks (or FORCE=yes); /var/lib/tsmacvlan stays
	@$(if $(DESTDIR)$(FORCE),,. plugin/occupied.sh; ! networks_left "$$BELOW/bin/tsmacvlan" >&2 || { echo 'nothing was removed: these networks are left, and their containers would not start again; remove them with docker network rm, or say make uninstall FORCE=yes' >&2; exit 1; })
	$(if $(DESTDIR),,-. plugin/occupied.sh; [ -z "$$(unit_of_make)" ] || systemctl disable --now tsmacvlan)
	@. plugin/units.sh; keep_unit "$$SERVICE_UNIT" $(PREFIX) && keep_unit "$$OWN_UNIT"
	rm -rf "$$BELOW/bin/tsmacvlan" "$$SERVICE_UNIT" "$$OLD_PROGRAM"
	for name in doc/tsmacvlan bash-completion/completions/tsmacvlan zsh/site-functions/_tsmacvlan man/man8/tsmacvlan.8; do \
	  rm -rf "$$BELOW/share/$$name"; done
	$(if $(DESTDIR),,systemctl daemon-reload)
	$(if $(DESTDIR),,@echo 'left: the settings in /etc/default/tsmacvlan, if there are any, and the state in STATE_DIR, /var/lib/tsmacvlan unless they say another')

deb: build $(PINNED) ## release/tsmacvlan_VERSION_ARCH.deb, the Debian package for this machine's architecture
	mkdir -p $(RELEASE)
	node plugin/deb.ts $(RELEASE)

release: check build $(PINNED) ## release/: .deb, archives of the one file, managed plugins, npm package, checksums, SBOM
	node plugin/release.ts $(RELEASE)

sign: ## release/SHA256SUMS.minisig, by minisign: make sign KEY=~/.minisign/tsmacvlan.key
	@test -n "$(KEY)" || { echo 'no key given; use make sign KEY=FILE (docs/releasing.md)' >&2; exit 2; }
	@test -f $(PUBLIC) || { echo 'there is no $(PUBLIC), by which the signature is checked; docs/releasing.md says how it is made' >&2; exit 2; }
	minisign -S -s $(KEY) -m $(RELEASE)/SHA256SUMS -t 'tsmacvlan $(VERSION)'
	minisign -V -p $(PUBLIC) -m $(RELEASE)/SHA256SUMS

clean: ## remove everything that make made
	rm -rf dist bin .lab bench.json release plugin/rootfs plugin/config.json site/pages site/node_modules node_modules $(RUNTIME)

$(PINNED): plugin/runtime/package-lock.json
	npm ci --prefix plugin/runtime --loglevel=error --no-audit --no-fund
	@[ -x $(RUNTIME)/node-linux-$(NODE_ARCH)/bin/node ] || { rm -f $@; echo 'npm did not fetch node-linux-$(NODE_ARCH), which it does not say of packages for one architecture; look at its connection to the registry (npm ping) and run make again' >&2; exit 1; }
	touch $@

node_modules/.package-lock.json: package-lock.json
	npm ci --loglevel=error --no-audit --no-fund
	touch $@

$(DOCUMENT_TOOLS): site/package-lock.json
	npm ci --prefix site --loglevel=error --ignore-scripts --no-audit --no-fund
	touch $@
