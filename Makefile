# `make` wraps `rollout` commands and scripts; each of them works without it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
HOST ?= 127.0.0.1
PORT ?= 3000
WORKERS ?= 2
# Most tests wait for a service: more of them run at a time than there are cores.
PROCESSES ?= 4
VENV := .venv/bin

help: ## Show these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

serve: .venv/.installed-demo ## Install, build the demo and serve it on HOST:PORT
	@$(VENV)/rollout demo --host $(HOST) --port $(PORT) --workers $(WORKERS)

test: .venv/.installed-dev ## Install, lint and run every test
	@scripts/lint
	@scripts/test $(PROCESSES)

check: .venv/.installed-dev ## Lint, and the tests that need no process: for the loop while writing
	@scripts/lint
	@$(VENV)/pytest -m "not process" --numprocesses 2

lint: .venv/.installed-dev ## Format check, ruff, mypy strict, import contract
	@scripts/lint

bench: .venv/.installed-dev ## Measure this service against six others, side by side; ARGS="--only rollout,mosec"
	@scripts/need wrk
	@$(VENV)/python -m loadtests.bench $(ARGS)

load: .venv/.installed-dev ## Send users to HOST:PORT, from locust's page or for a time: HEADLESS=30s
	@$(VENV)/python -m locust -f loadtests/locustfile.py --host http://$(HOST):$(PORT) \
	    $(if $(HEADLESS),--headless -u 30 -r 10 -t $(HEADLESS) --only-summary,--web-host 127.0.0.1)

models: .venv/.installed-dev ## Pack small models of some thirty kinds, and write docs/models.md: their variants, sizes and times
	@$(VENV)/python -m tests.kinds $(ARGS)

large: .venv/.installed-dev ## Pack, verify, serve and measure networks of the size that teams bring; ARGS="--device cuda"
	@$(VENV)/python -m loadtests.large $(ARGS)

bench-batch: .venv/.installed-dev ## Measure Spark, Ray, `rollout predict` and onnxruntime alone on one table of rows
	@scripts/need java openjdk-17-jre-headless
	@$(VENV)/python -m loadtests.batch $(ARGS)

judge: .venv/.installed-dev ## Simulate trials whose truth is known: how often is the verdict wrong, how soon right? ARGS="0.1 drift"
	@$(VENV)/python -m tests.judge $(ARGS)

fuzz: .venv/.installed-dev ## Ten minutes of mutated requests in every protocol: does anything fail, hang or grow?
	@$(VENV)/python -m loadtests.fuzz $(ARGS)

soak: .venv/.installed-dev ## An hour of steady load: does the workers' memory grow?
	@$(VENV)/python -m loadtests.soak $(ARGS)

ramp: .venv/.installed-dev ## Ramp a trial under a million requests to three replicas; is every answer right?
	@scripts/need haproxy
	@$(VENV)/python -m loadtests.ramp $(ARGS)

reviews: .venv/.installed-dev ## A million review items: how long a claim takes, what an item weighs and costs
	@$(VENV)/python -m loadtests.reviews $(ARGS)

rehearse: .venv/.installed-dev ## What happens to a deployment in a year, on this machine: three replicas under constant load
	@scripts/need haproxy
	@$(VENV)/python -m loadtests.rehearsal $(ARGS)

docs: .venv/.installed-dev ## Build the site into site/: tutorials, how-tos, explanations, the reference
	@NO_MKDOCS_2_WARNING=1 $(VENV)/python -m mkdocs build --strict && echo "site/index.html"

lock: ## Write constraints.txt and requirements/ anew
	@scripts/lock

audit: .venv/.installed-dev ## Look up known vulnerabilities of what is locked
	@$(VENV)/pip-audit --disable-pip --require-hashes --requirement constraints.txt

typescript: .venv/.installed-dev ## Generate the types of the TypeScript client from the service's description
	@scripts/need node nodejs && scripts/need npm
	@api=$$(mktemp --suffix .json) && trap "rm $$api" EXIT && $(VENV)/python scripts/describe > $$api && \
	    cd client/typescript && npm ci --no-audit --no-fund && npm run generate -- $$api -o src/api.ts

clean: ## Remove .venv, caches and the demo's data in .rollout
	rm -rf .venv .rollout .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache loadtests/results site

include k8s/deploy.mk

.venv/.installed-%: pyproject.toml constraints.txt requirements/demo.txt requirements/build.txt scripts/install
	@scripts/install $*

.PHONY: help serve test check lint bench bench-batch load models large judge fuzz soak ramp reviews rehearse docs lock audit typescript clean
.PRECIOUS: .venv/.installed-%
