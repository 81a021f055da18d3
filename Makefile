# The recipes of this repository, all of them. `make` lists them.
.DEFAULT_GOAL := help
.PHONY: help run test deps lint doc unit system bench bench-cluster bench-tunnel first-run fuzz sim install deb static

CARGO ?= cargo
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 60
SIM ?= idle 1000 24

help: ## list the recipes
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build pmd and run it in the foreground on port 4369
	$(CARGO) run --release --locked -- start --foreground

test: deps lint doc unit system ## install what the tests need, then run every check and test

deps: ## install Erlang, Elixir, RabbitMQ and the tools the tests use, if missing (Debian, Ubuntu)
	scripts/install-test-deps

lint: ## formatting and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings
	$(CARGO) clippy -p pmd-core --all-targets --all-features --locked -- -D warnings

doc: ## API documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --all-features --no-deps --document-private-items --locked

unit: ## tests of the crates themselves, and of the documentation's examples
	$(CARGO) test --workspace --lib --locked
	$(CARGO) test -p pmd-protocol -p pmd-core --all-features --tests --locked
	$(CARGO) test --workspace --doc --locked

system: ## tests of the binary: against stock epmd, hostile input, command line, real Erlang, clusters (needs root)
	$(CARGO) test --locked --test conformance --test hostile --test cli --test erlang --test cluster --test package --no-fail-fast

bench: ## pmd and stock epmd side by side, in one run
	$(CARGO) bench --locked --bench epmd_load

bench-cluster: ## pmd and serf side by side as clusters of 3 to 100 hosts (needs root, and serf)
	$(CARGO) bench --locked --bench cluster

bench-tunnel: ## Erlang distribution through tunnels, in the clear and over its own TLS (needs root)
	$(CARGO) bench --locked --bench tunnel

first-run: ## the first run of the README on two hosts, timed (needs root)
	$(CARGO) build --release --locked
	scripts/first-run

fuzz: ## every fuzz target for FUZZ_SECONDS (needs cargo-fuzz)
	for target in epmd_request epmd_reply epmd_roundtrip peer_frames peer_body node_frames node_delta; do \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run $$target target/fuzz-corpus/$$target fuzz/corpus/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

sim: ## a simulated cluster: make sim SIM='join 5000' (what else there is: SIM=help)
	$(CARGO) run --release --locked -p pmd-core --features sim --example sim -- $(SIM)

deb: ## the Debian package, in target/debian
	$(CARGO) build --release --locked --bin pmd
	scripts/build-deb target/release/pmd target/debian

static: ## the static binary of the image, and a test of it in an empty root (needs root, musl-tools and the musl target)
	$(CARGO) build --release --locked --bin pmd --target $(shell uname -m)-unknown-linux-musl
	scripts/test-image target/$(shell uname -m)-unknown-linux-musl/release/pmd

install: ## install the binary, its man pages and completions under PREFIX
	$(CARGO) build --release --locked
	install -D -m 755 target/release/pmd $(DESTDIR)$(PREFIX)/bin/pmd
	install -d $(DESTDIR)$(PREFIX)/share/man/man1
	target/release/pmd man --dir $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	target/release/pmd completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/pmd
