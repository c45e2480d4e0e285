# forecaster: `make` alone lists the targets.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
# Index with CPU wheels of torch, to save 4.5 GB of CUDA libraries. Empty: torch as the package index has it.
TORCH_INDEX ?=
ARGS ?=
# Python of an environment with river and deep-river, for `make bench` to measure them too (benchmarks/bench_peers.py).
PEERS ?=
# Processes for the tests that need no broker; those on one are about time and run alone.
JOBS ?= 2

# The tests start the program hundreds of times. Where this is set, each start compiles torch and all the rest anew,
# for some seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format docs test-kafka test-fault test-long test-mutations test-stack test-alerts broker reliability bench bench-e2e accuracy lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.ready ## make .venv with everything in it (TORCH_INDEX=<url> for CPU wheels of torch)

$(VENV)/.ready: pyproject.toml requirements.lock requirements-torch.lock
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: set PYTHON to a Python 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
ifeq ($(strip $(TORCH_INDEX)),)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock -r requirements-torch.lock
else
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --index-url "$(TORCH_INDEX)" \
		"$$(grep -oE '^torch==[0-9.]+' requirements-torch.lock)"
endif
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	$(BIN)/python -c "from forecaster.app import compile_kernels; compile_kernels()"
	@touch $@

demo: setup ## run the daemon embedded, no broker; ARGS="--data FILE.csv --seconds 60" passes flags on
	@$(BIN)/forecaster demo $(ARGS)

test: setup ## all tests, those on a real Kafka too (KAFKA_BOOTSTRAP=host:port uses a running broker)
	@failed=; \
	$(BIN)/python -m pytest -m "not kafka" -n $(JOBS) $(ARGS) || test $$? -eq 5 || failed=1; \
	$(BIN)/python -m pytest -m kafka $(ARGS) || test $$? -eq 5 || failed=1; \
	test -z "$$failed"  # 5: none of this kind in ARGS

check: setup ## format, lint, types, import contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## put the code in form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup ## write anew what is made from code: docs/settings.md, the dashboards, what deploy/k8s copies
	$(BIN)/python docs/make_settings.py
	$(BIN)/python deploy/grafana/make_dashboards.py
	$(BIN)/python deploy/k8s/make_copies.py

test-kafka: setup ## only the tests on a real broker
	$(BIN)/python -m pytest -m kafka $(ARGS)

test-fault: setup ## the long form of the fault tests, hundreds of kills, hours; each that passes adds a line to faults.jsonl
	LONG_TESTS=1 FAULT_REPORT=$(CURDIR)/benchmarks/results/faults.jsonl \
		$(BIN)/python -m pytest tests/fault $(ARGS)

test-long: setup ## all files of the Numenta benchmark and twenty heart rates through a real broker, each reading once
	LONG_TESTS=1 $(BIN)/python -m pytest tests/broker/test_daemon_on_kafka.py -k all_of_nab $(ARGS)

test-mutations: setup ## take the guards of exactly-once delivery out, one at a time: the tests have to be red
	$(BIN)/python tests/fault/mutations.py $(ARGS)

test-stack: ## bring docker-compose.yml up for real, kill a worker and the broker, count; as root it needs no Docker engine
	deploy/stack/run.sh

test-alerts: setup ## inject the fault of every alert on a real stack with Prometheus; writes docs/alerts.md, half an hour
	$(BIN)/python deploy/test_alerts.py $(ARGS)

broker: setup ## run one real Kafka broker in the foreground
	$(BIN)/python tests/kafka_broker.py

reliability: setup ## time recovery, fail-over and the cost of exactly-once; writes docs/reliability.md anew
	$(BIN)/python benchmarks/bench_recovery.py
	$(BIN)/python benchmarks/bench_failover.py
	$(BIN)/python benchmarks/bench_delivery.py
	$(BIN)/python docs/make_reliability.py

bench: setup ## all short benchmarks, some 15 minutes; writes benchmarks/RESULTS.md and docs/scaling.md anew
	$(BIN)/python benchmarks/bench_step.py
	$(BIN)/python benchmarks/bench_codec.py
	$(BIN)/python benchmarks/bench_client.py
	$(BIN)/python benchmarks/bench_scale.py
	$(BIN)/python benchmarks/bench_rest.py
	$(BIN)/python benchmarks/bench_latency.py --rates 100 1000 --clients batched relay
	$(BIN)/python benchmarks/bench_e2e.py --readings 100000 --runs 2
ifneq ($(strip $(PEERS)),)
	$(BIN)/python benchmarks/bench_peers.py --python "$(PEERS)"
endif
	$(BIN)/python benchmarks/make_results.py

bench-e2e: setup ## the daemon from Kafka to Kafka beside a bare relay; ARGS="--clients kafka-python librdkafka"
	$(BIN)/python benchmarks/bench_e2e.py $(ARGS)

accuracy: setup ## score the engine on the public series beside the checkout; writes docs/accuracy.md anew
	$(BIN)/python benchmarks/accuracy_sets.py $(ARGS)
	$(BIN)/python docs/make_accuracy.py

lock: ## pin all dependencies with hashes, after a change of pyproject.toml; ARGS=--upgrade renews what is pinned
	@cat requirements.lock requirements-torch.lock > .locked.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --group dev pyproject.toml \
		-o .locked.txt $(ARGS)
	$(BIN)/python deploy/split_lock.py .locked.txt requirements.lock requirements-torch.lock
	@rm .locked.txt

clean: ## remove what the targets made
	rm -rf $(VENV) .kafka build *.egg-info .mypy_cache .ruff_cache .hypothesis .pytest_cache
