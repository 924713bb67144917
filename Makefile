# Every habit of this repository is one target; `make` alone lists them.

PYTHON := .venv/bin/python
NATIVE := PYTHONPATH=deploy $(PYTHON) -m native
# WAY=kubernetes leads to the stack of `make k8s-local`; without it, to the one that runs on this machine.
UPKEEP = PYTHONPATH=deploy $(PYTHON) -m upkeep $(if $(WAY),--way $(WAY))
SIGNING := PYTHONPATH=deploy $(PYTHON) -m upkeep.signing
SETUP := deploy/native/setup.sh
# Processes that run tests: make test WORKERS=2. Two of them at most have servers (tests/support/scheduling.py).
WORKERS ?= 3
LONG_TESTS = $(sort $(shell grep -rl --include='test_*.py' 'mark\.long' tests))
PYPROJECTS := $(wildcard services/*/pyproject.toml)
COMPILE := uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --quiet \
	--no-emit-package tickwire-chassis --no-emit-package tickwire-contracts

# A word of a recipe, whatever characters it has.
quoted = '$(subst ','\'',$(1))'

.DEFAULT_GOAL := help
.PHONY: help setup run stop status footprint demo login keys-reset rotate backup backup-agent restore support-bundle upgrade-check reset test test-long lint style types e2e bench faults lock up down images images-sign images-verify k8s-local k8s-check

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install what is missing: servers, virtual environment, locked packages
	@$(SETUP)

run: ## Start the whole stack on this machine without Docker; Ctrl-C stops it
	@! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || PYTHONPATH=deploy python3 -m native.before
	@$(SETUP)
	@$(NATIVE) run

# Where there is no virtual environment, no `make run` was here. The verbs of containers and clusters need its packages.
$(PYTHON):
	@[ -n "$(ARGS)$(WAY)" ] || docker compose ps --all --quiet 2>/dev/null | grep -q . || \
		{ echo "Nothing has been started here: make run, or make up." >&2; exit 1; }
	@$(SETUP) --packages

stop status footprint demo login keys-reset rotate backup backup-agent restore reset: | $(PYTHON)

stop: ## Stop the stack that `make run` started
	@$(NATIVE) stop

status: ## Show the processes of the running stack
	@$(NATIVE) status

footprint: ## Measure memory and processor time of the running stack
	@$(NATIVE) footprint $(ARGS)

demo: ## Walk through everything against the running stack
	@$(UPKEEP) demo $(ARGS)

login: ## Print an address that logs a browser into the console once (ARGS=--url=<gateway>: of another stack)
	@$(UPKEEP) login $(ARGS)

keys-reset: ## Make a new administrator's key for the running stack (ARGS=--revoke-others ends the old ones)
	@$(UPKEEP) keys-reset $(ARGS)

rotate: ## Change a secret everywhere at once: make rotate SECRET=api-key (none: they are listed)
	@$(UPKEEP) rotate $(if $(SECRET),$(call quoted,$(SECRET))) $(ARGS)

backup: ## Write a backup of the running stack (BACKUP_KEY encrypts it; ARGS=--help)
	@$(UPKEEP) backup $(ARGS)

backup-agent: ## Make the backups that tasks ask for, until Ctrl-C (containers, clusters; `make run` has an agent)
	@$(UPKEEP) backup-agent $(ARGS)

restore: ## Put back a backup: make restore FILE=backups/tickwire-….tar
	@$(UPKEEP) restore $(if $(FILE),$(call quoted,$(FILE))) $(ARGS)

support-bundle: ## Gather what somebody who helps needs to see, without secrets
	@if [ -x $(PYTHON) ]; then $(UPKEEP) support-bundle $(ARGS); else deploy/containers/upkeep support-bundle $(WAY); fi

upgrade-check: ## Say what an upgrade to this release would do, and what speaks against it
	@if [ -x $(PYTHON) ]; then $(UPKEEP) upgrade-check $(ARGS); else deploy/containers/upkeep upgrade-check $(WAY); fi

reset: ## Forget all data of the stopped stack
	@$(NATIVE) reset

test: lint ## Check and test everything (narrow the tests: make test ARGS="tests/unit -k ports")
	@$(SETUP) --test
	$(PYTHON) -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder --max-worker-restart 0 -m "not long" $(ARGS)

test-long: ## Everything that `make test` leaves out because it takes minutes: the whole fault table, long drills
	@$(SETUP) --test
	FAULTS_LONG=1 $(PYTHON) -m pytest -o faulthandler_timeout=0 tests/faults tests/integration/native \
		$(filter-out tests/faults/% tests/integration/native/%,$(LONG_TESTS)) $(ARGS)

lint: ## Check style, types, the imports between packages, and that generated files are up to date
	@$(SETUP) --test
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target types style

style:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	PYTHONPATH=deploy $(PYTHON) -m generated

types:
	.venv/bin/mypy

e2e: ## Try a stack that runs anywhere: make e2e URL=http://… KEY=tw_live_… [MAILBOX=http://…]
	@$(SETUP) --test
	TICKWIRE_URL=$(URL) TICKWIRE_KEY=$(KEY) TICKWIRE_MAILBOX=$(MAILBOX) $(PYTHON) -m pytest tests/e2e -rs $(ARGS)

bench: ## Measure against peers (its options: make bench ARGS=--help)
	@$(SETUP) --bench
	PYTHONPATH=deploy:tests $(PYTHON) -m benchmarks $(ARGS)

faults: ## Break everything under load and account for every accepted id (ARGS=--help)
	@$(SETUP) --test
	PYTHONPATH=deploy:tests $(PYTHON) -m faults --write $(ARGS)

lock: ## Resolve the dependencies anew into the two lock files
	@$(SETUP) --test
	.venv/bin/$(COMPILE) requirements.in $(PYPROJECTS) --output-file requirements.lock
	.venv/bin/$(COMPILE) requirements.in requirements-dev.in $(PYPROJECTS) --output-file requirements-dev.lock

# Metrics and Grafana are on unless somebody says otherwise: `make up COMPOSE_PROFILES=`, or a line of `.env`.
ifeq ($(shell grep -sE '^(export )?COMPOSE_PROFILES=' .env),)
up images: export COMPOSE_PROFILES ?= observability
endif

up: ## Start the whole stack in containers and wait until it is ready
	@deploy/containers/up

down: ## Stop the containers; the data stays
	docker compose --profile '*' down

images: ## Build the four images
	docker compose build gateway stock-data email batch-processor

images-sign: ## Sign the four images: make images-sign KEY=release.pem (docs/guides/images.md)
	$(if $(KEY),,$(error KEY is missing: make images-sign KEY=release.pem))
	@$(SETUP)
	@$(SIGNING) sign --key $(call quoted,$(KEY)) $(IMAGES)

images-verify: ## Verify the four images without a network: make images-verify KEY=release.pub
	$(if $(KEY),,$(error KEY is missing: make images-verify KEY=release.pub))
	@$(SETUP)
	@$(SIGNING) verify --key $(call quoted,$(KEY)) $(IMAGES)

k8s-local: ## Everything on the small cluster that kubectl points at (kind, minikube, k3d …)
	@deploy/containers/k8s-local

k8s-check: ## Build every combination of the manifests and hold them to their schemas
	@$(SETUP) --test
	$(PYTHON) -m pytest tests/deploy/test_manifests.py tests/deploy/test_parity.py $(ARGS)
