# All recipes of this repository. `make` lists them.
.DEFAULT_GOAL := help
.PHONY: help run check test tools deps lint scripts features deny doc unit system recipes build \
	test-otp erlang-client bench bench-cluster bench-tunnel first-run fuzz sim install deb static

CARGO ?= cargo
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= epmd_request epmd_reply epmd_roundtrip peer_frames peer_body node_frames node_delta node_signed
SIM ?= idle 1000 24
# PROFILE=dev builds faster, for runs whose speed does not matter.
PROFILE ?= release
BENCH_PROFILE ?= $(if $(filter release,$(PROFILE)),bench,$(PROFILE))
# Arguments of the benchmarks: --quick for a smoke run, --help for the others.
BENCH_ARGS ?=
# An existing pmd binary, for first-run, deb and install.
BINARY ?=
MUSL := $(shell uname -m)-unknown-linux-musl

export PATH := $(CURDIR)/target/tools/bin:$(PATH)
profile_folder = $(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
pmd = $(if $(BINARY),$(BINARY),target/$(profile_folder)/pmd)

help: ## list the recipes
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build pmd and run it in the foreground on port 4369
	$(CARGO) run --profile $(PROFILE) --locked -- start --foreground

check: tools lint scripts deny doc unit ## the checks that need neither root nor packages: formatting, lints, licences, documentation, unit tests

test: deps lint scripts features deny doc unit system recipes ## all checks and tests, as CI runs them (needs root; installs packages)

test-otp: ## tests with OTP 27, 28 and 29, in systems that it installs in target/otp (needs root, Debian 12 and mmdebstrap)
	scripts/test-otp

tools: ## install cargo-deny, cargo-hack, cargo-fuzz and actionlint in target/tools, if missing
	scripts/install-tools

deps: ## install Erlang, Elixir, RabbitMQ and the other packages that the tests use, if missing (Debian, Ubuntu; needs root)
	scripts/install-test-deps
	scripts/install-tools

lint: ## formatting and clippy, which also checks the oldest supported Rust; warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings
	$(CARGO) clippy -p pmd-core --all-targets --all-features --locked -- -D warnings

scripts: ## shellcheck for the shell scripts, actionlint for the workflow
	scripts/check-scripts

features: ## check each crate without features and with each feature alone
	$(CARGO) hack check --workspace --each-feature --exclude-all-features --locked

deny: ## licences, bans and sources of the dependencies (deny.toml)
	for manifest in Cargo.toml fuzz/Cargo.toml; do \
	  $(CARGO) deny --config deny.toml --manifest-path $$manifest --locked check --hide-inclusion-graph \
	    --allow license-exception-not-encountered licenses bans sources || exit 1; \
	done

doc: ## API documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --all-features --no-deps --document-private-items --locked

unit: ## unit tests, tests of the floors, and the examples in the documentation
	$(CARGO) test --workspace --lib --locked
	$(CARGO) test -p pmd-protocol -p pmd-core --all-features --tests --locked
	$(if $(wildcard tests/floors.rs),$(CARGO) test --test floors --locked)
	$(CARGO) test --workspace --doc --locked

system: ## tests of the binary: against stock epmd, hostile input, command line, real Erlang, clusters (needs root)
	$(CARGO) test --locked --test conformance --test hostile --test cli --test erlang --test cluster --test package --no-fail-fast

recipes: ## all other recipes except fuzz and erlang-client, for a few seconds each (needs root)
	scripts/try-recipes

bench: ## pmd and stock epmd side by side, in one run
	$(CARGO) bench --profile $(BENCH_PROFILE) --locked --bench epmd_load -- $(BENCH_ARGS)

bench-cluster: ## pmd and serf side by side as clusters of 3 to 100 hosts (needs root, and serf)
	$(CARGO) bench --profile $(BENCH_PROFILE) --locked --bench cluster -- $(BENCH_ARGS)

bench-tunnel: ## Erlang distribution through tunnels, over plain TCP and over its own TLS (needs root)
	$(CARGO) bench --profile $(BENCH_PROFILE) --locked --bench tunnel -- $(BENCH_ARGS)

build:
	$(if $(BINARY),,$(CARGO) build --profile $(PROFILE) --locked --bin pmd)

first-run: build ## the first run of the README on two hosts, timed (needs root)
	scripts/first-run $(pmd)

fuzz: ## every fuzz target for FUZZ_SECONDS (needs cargo-fuzz: make tools)
	@command -v cargo-fuzz >/dev/null || { echo "make fuzz needs cargo-fuzz: run make tools" >&2; exit 1; }
	for target in $(FUZZ_TARGETS); do \
	  mkdir -p target/fuzz-corpus/$$target && \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run $$target target/fuzz-corpus/$$target fuzz/corpus/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

sim: ## a simulated cluster: make sim SIM='join 5000' (SIM=help lists the others)
	$(CARGO) run --profile $(PROFILE) --locked -p pmd-core --features sim --example sim -- $(SIM)

erlang-client: ## the Erlang client with dialyzer, edoc and rebar3, as far as they are installed
	scripts/check-erlang-client

deb: build ## the Debian package, in target/debian
	scripts/build-deb $(pmd) target/debian

static: ## the static binary of the image, and a test of it in an empty root (needs root, musl-tools and the musl target)
	@command -v musl-gcc >/dev/null || { echo "make static needs musl-gcc: apt-get install musl-tools" >&2; exit 1; }
	@[ -d "$$(rustc --print target-libdir --target $(MUSL))" ] || \
	  { echo "make static needs Rust's standard library for $(MUSL): rustup target add $(MUSL)" >&2; exit 1; }
	$(CARGO) build --profile $(PROFILE) --locked --bin pmd --target $(MUSL)
	scripts/test-image target/$(MUSL)/$(profile_folder)/pmd

install: build ## install the binary, its man pages and completions under PREFIX
	install -D -m 755 $(pmd) $(DESTDIR)$(PREFIX)/bin/pmd
	install -d $(DESTDIR)$(PREFIX)/share/man/man1
	$(pmd) man --dir $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	$(pmd) completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/pmd
