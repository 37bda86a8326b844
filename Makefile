# What there is to do; `make help` tells.
.DEFAULT_GOAL := help
CARGO ?= cargo
SERVICES := python3 scripts/services.py
# known faults of crates
ADVISORIES := https://github.com/rustsec/advisory-db

.PHONY: help run stop clean test check check-deploy sbom api-test docker-test hard coherence bench bench-quick report fmt

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

run: ## serve the shop on :8000 with demo data; brings its own PostgreSQL and Redis
	$(CARGO) build --release --locked --bin testshop
	@python3 scripts/demo.py run

stop: ## end what `make run` started; its data stays
	@python3 scripts/demo.py stop

clean: ## end and remove what `make run` and `make test` made, and the build
	@python3 scripts/demo.py stop
	@$(SERVICES) clean
	rm -f .demo.env
	$(CARGO) clean

test: ## all tests, on a private PostgreSQL and Redis (POSTGRES_MAJOR=18 for that version)
	@$(SERVICES) browser
	@$(SERVICES) run test -- $(CARGO) test --locked

check: ## format, lints, licences and known faults of what we build on
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	$(CARGO) clippy --locked --all-targets -- -D warnings
	@command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked
	$(CARGO) deny --locked check bans licenses sources
	@if timeout 30 git ls-remote -q $(ADVISORIES) HEAD >/dev/null 2>&1; then $(CARGO) deny --locked check advisories; \
	else echo "SKIPPED: advisories, $(ADVISORIES) cannot be reached"; fi

sbom: ## what it is built on, as CycloneDX (testshop.cdx.json)
	@command -v cargo-cyclonedx >/dev/null || $(CARGO) install cargo-cyclonedx --locked
	$(CARGO) cyclonedx --format json --spec-version 1.5 --override-filename testshop.cdx

check-deploy: ## what stands under deploy/, and docker-compose.yml, against its schemas
	@python3 scripts/check_deploy.py

api-test: ## try the API out against its own description, with Schemathesis
	@python3 scripts/api_test.py

docker-test: ## build the image, run docker-compose.yml and everything that it promises
	@python3 scripts/docker_test.py

hard: ## what takes long: faults, kills, storms, hostile clients, made-up inputs; a table of promise, number, verdict
	@python3 scripts/hard.py --save

coherence: ## the part of it about freshness
	@python3 scripts/hard.py --only freshness,naive

bench: ## measure everything beside its peers and its limit, into loadtest/results
	@python3 loadtest/bench --save

bench-quick: ## the main figures (a few minutes), printed only
	@python3 loadtest/bench --quick

report: ## REPORT.md's tables and plots again, from loadtest/results
	@python3 loadtest/report.py

fmt: ## format the code
	$(CARGO) fmt
