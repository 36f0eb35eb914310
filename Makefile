# Sporlog's commands. `make demo` and `make test` share one build profile (dev, without debug
# information) and one target folder outside the checkout, so that the second of them is quick.

export CARGO_TARGET_DIR ?= $(HOME)/.cache/sporlog-target
export CARGO_TERM_COLOR ?= auto

.DEFAULT_GOAL := help
.PHONY: help demo test test-ballista test-minio lint release bench fuzz

help: ## What there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Build, take in sample data of all kinds, show what Sporlog does with it, and serve a citizen's pages
	scripts/need cargo cc cmake ssl curl sftp
	scripts/demo

test: ## Install what the tests need, and run them all
	scripts/need cargo cc cmake ssl openssl curl go python3 venv java mvn sftp node npm chromium
	cargo test --workspace --locked
	python3 -B -m unittest discover --start-directory bench --pattern '*_test.py'
	tests/docs/run
	tests/outside/run
	tests/disk/run
	tests/bucket/run
	tests/servers/run
	tests/kubernetes/run
	tests/spark/run
	tests/kafka/run
	tests/sftp/run
	tests/signin/run
	tests/pages/run

test-ballista: ## Build DataFusion once more, with Ballista's features, and have a cluster answer queries
	scripts/need cargo cc cmake ssl go python3
	tests/ballista/run

test-minio: ## Build MinIO (ten minutes), and use each command on a store in it
	scripts/need cargo cc cmake ssl openssl curl go python3 sftp
	cargo build --workspace --locked --bin sporlog --example bucket_proxy
	SPORLOG=$(CARGO_TARGET_DIR)/debug/sporlog PROXY=$(CARGO_TARGET_DIR)/debug/examples/bucket_proxy \
		BUCKET_SERVER=minio tests/bucket/with tests/bucket/commands

lint: ## Formatting, clippy, licences and sources of dependencies
	scripts/need cargo cc cmake ssl python3
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	scripts/deny

release: ## Build the optimised program and the measuring tool
	scripts/need cargo cc cmake ssl
	cargo build --release --locked --workspace --examples --bins

bench: release ## Measure against DuckDB, PostgreSQL, kcat, OpenSSH and curl, in the same run
	scripts/need python3 venv java mvn
	bench/run
	bench/kafka.py
	bench/sftp.py
	bench/pull.py
	bench/bucket.py

fuzz: ## Fuzz each parser for a minute (SECONDS_EACH=600 for ten)
	scripts/fuzz
