# The one-word commands. They need Python 3.11 or later and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: start test test-compat test-vllm system check bench bench-engines soak chaos clean
.DEFAULT_GOAL := start

# A stamp holds the checksum of the requirements it installed: pip runs only when they changed.
define install
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@sum=$$(cat $(1) | cksum); \
	if [ "$$(cat $(VENV)/$(2).stamp 2>/dev/null)" != "$$sum" ]; then \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(lastword $(1)) && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e . && \
		echo "$$sum" > $(VENV)/$(2).stamp; \
	fi
endef

start: ## installs the base and serves: http://127.0.0.1:8888/v1
	$(call install,requirements.txt,base)
	$(BIN)/python start.py

check: ## formatting, lint, types
	$(call install,requirements.txt requirements-transformers.txt requirements-test.txt,test)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# What tests need of the system: a client that people use, network namespaces, a browser, and the
# servers that the gateway can keep its keys, records and counts in.
system:
	@command -v curl >/dev/null && command -v ip >/dev/null && command -v chromium >/dev/null && \
	command -v redis-server >/dev/null && ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { \
		test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
		apt-get install -qq -y curl iproute2 chromium redis-server postgresql >/dev/null; \
	} || echo "something of curl, ip, chromium, Redis, PostgreSQL is missing: tests that need it are skipped"

test: check system ## everything, in three thirds at once; installs what it needs
	$(BIN)/python -m tests.thirds

test-compat: ## all eight mixes with real FastChat parts; makes an environment with torch
	$(call install,requirements.txt requirements-transformers.txt requirements-test.txt,test)
	$(BIN)/python -m pytest -q -m "torch or not soak" tests/compat

test-vllm: ## the conformance suite and more on the real vLLM; makes an environment of 3.5 GB
	$(call install,requirements.txt requirements-transformers.txt requirements-test.txt,test)
	$(BIN)/python -m tests.vllm

bench: ## measures, side by side with others; see benchmarks/
	$(call install,requirements.txt requirements-transformers.txt requirements-test.txt,test)
	$(BIN)/python -m benchmarks

bench-engines: ## the transformers engine's batcher beside other ways to run a model
	$(call install,requirements.txt requirements-transformers.txt requirements-test.txt,test)
	$(BIN)/python -m benchmarks.engines

soak: ## 100,000 requests through the gateway; its memory must not grow
	$(call install,requirements.txt requirements-transformers.txt requirements-test.txt,test)
	$(BIN)/python -m pytest -q -rP -m soak tests/soak

chaos: ## kills, stops and releases at random under load for minutes; no request may be lost
	$(call install,requirements.txt requirements-transformers.txt requirements-test.txt,test)
	$(BIN)/python -m pytest -q -rP -m soak tests/chaos

clean: ## removes what the commands above made
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache
