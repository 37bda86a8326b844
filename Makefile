.DEFAULT_GOAL := help
CARGO ?= cargo
SERVICES := python3 scripts/services

.PHONY: help run stop clean test check advisories check-deploy sbom api-test client-test docker-test stress coherence bench bench-quick report fmt

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

run: ## serve on :8000 with demo data and a private PostgreSQL and Redis
	$(CARGO) build --release --locked --bin testshop
	@python3 scripts/demo.py run

stop: ## stop what `make run` started; its data stays
	@python3 scripts/demo.py stop

clean: ## stop all servers of this checkout; delete their data, private tools and the build
	@python3 scripts/demo.py stop
	@$(SERVICES) clean
	rm -f .demo.env
	$(CARGO) clean

test: ## run all tests with a private PostgreSQL and Redis (POSTGRES_MAJOR=18 selects a version, TEST_ARGS tests)
	@$(SERVICES) pooler >/dev/null
	@AXE_CORE="$$($(SERVICES) browser)" && PREVIOUS_TESTSHOP="$$(python3 scripts/previous_release.py)" && \
	export AXE_CORE PREVIOUS_TESTSHOP && \
	$(SERVICES) run test -- $(CARGO) test --locked $(TEST_ARGS)

check: ## check formats, lints, types, licences and known vulnerabilities of dependencies
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --manifest-path fuzz/Cargo.toml --target-dir target -- -D warnings
	python3 scripts/lint.py
	python3 scripts/dependencies.py
	@mkdir -p target && python3 scripts/dependencies_test.py >target/dependencies_test.log 2>&1 || \
	{ cat target/dependencies_test.log; exit 1; }

advisories: ## replace the dated copy of the known vulnerabilities (deny/advisories)
	@python3 scripts/dependencies.py --refresh

check-deploy: ## validate deploy/ and docker-compose.yml without running them
	@python3 scripts/check_deploy.py

sbom: ## write the dependencies as a CycloneDX file (testshop.cdx.json)
	@command -v cargo-cyclonedx >/dev/null || $(CARGO) install cargo-cyclonedx --locked
	$(CARGO) cyclonedx --format json --spec-version 1.5 --override-filename testshop.cdx

api-test: ## test the API against openapi.json with Schemathesis
	@python3 scripts/api_test.py

client-test: ## generate API clients in Python and TypeScript from openapi.json, and test them
	@python3 scripts/client_test.py

docker-test: ## build the image, run docker-compose.yml and test it (DOCKER_TEST=--release: optimised)
	@python3 scripts/docker_test.py $(DOCKER_TEST)

stress: ## run the long tests: failures, kills, overload, hostile clients, fuzzing
	@python3 scripts/stress.py --save

coherence: ## run the long tests of freshness only
	@python3 scripts/stress.py --only freshness,leases,naive

bench: ## run all benchmarks, with peers and baselines, and save them in loadtest/results
	@python3 loadtest/bench --save

bench-quick: ## run and print the main benchmarks (a few minutes)
	@python3 loadtest/bench --quick

report: ## generate the tables and plots of the report from loadtest/results
	@python3 loadtest/report.py

fmt: ## format the code
	$(CARGO) fmt
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml
	python3 scripts/lint.py --fix
