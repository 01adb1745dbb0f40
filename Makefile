# `make help` lists what there is; `make run` and `make test` need nothing before them.

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet install
LOCK := $(VENV)/bin/uv pip compile pyproject.toml --universal --generate-hashes --python-version 3.11 --quiet

# Stamps of what is installed, so that a second `make run` starts at once.
RUNTIME := $(VENV)/.runtime
DEVELOPMENT := $(VENV)/.development
APPLIANCE := $(VENV)/.appliance

.DEFAULT_GOAL := help
.PHONY: help run test test-cluster lint lint-appliance appliance lab-single lab-dbcl lab-proxies lab-cluster lab-up lab-down bench \
	bench-cluster docs lock clean

# The lab's scenarios use the tools of the virtual environment.
LAB := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" molecule/shared/run.sh

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(RUNTIME) ## Start a server with two accounts in ./var; Ctrl-C stops it
	@exec $(PY) -m monktalk.embedded

test: $(DEVELOPMENT) ## Run the tests; ARGS="-k roster" is passed to pytest
	@$(PY) -m pytest $(ARGS)

test-cluster: $(DEVELOPMENT) ## Run the tests at wire level on two workers, each client at the next one
	@MONKTALK_TEST_WORKERS=2 $(PY) -m pytest $(or $(ARGS),app/tests/wire)

lint: $(DEVELOPMENT) ## Check style, types and the direction of imports
	@failed=0; \
	$(PY) -m ruff check . || failed=1; \
	$(PY) -m ruff format --check . || failed=1; \
	$(PY) -m mypy || failed=1; \
	$(VENV)/bin/lint-imports --no-cache --no-logo || failed=1; \
	exit $$failed

lint-appliance: $(APPLIANCE) ## Check roles, playbooks and inventories, and that the tables in their READMEs are current
	@failed=0; \
	$(VENV)/bin/yamllint --strict . || failed=1; \
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/ansible-lint --offline --nocolor -q || failed=1; \
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" .config/role-docs.sh --check || failed=1; \
	exit $$failed

appliance: $(APPLIANCE) ## Install Ansible beside everything else, to install servers: docs/installation.md

lab-single: $(APPLIANCE) ## Test the appliance on a real systemd host made on this machine (root); LAB_NAME names it
	@$(LAB) test single

lab-cluster: $(APPLIANCE) ## The same for a cluster of eight hosts, then faults under load; RUNS=10 FAULTS=node-killed,nodes-split
	@RUNS="$(RUNS)" FAULTS="$(FAULTS)" $(LAB) test cluster

lab-dbcl: $(APPLIANCE) ## Test the SQL cluster on three such hosts: faults, switchover, restore
	@$(LAB) test dbcl

lab-proxies: $(APPLIANCE) ## Test join proxies and bus, on four such hosts
	@$(LAB) test proxies

lab-up: $(APPLIANCE) ## Make that host and leave it running; prints how to log in and chat
	@$(LAB) up single

lab-down: $(APPLIANCE) ## Take it away
	@$(LAB) down single

bench: $(DEVELOPMENT) ## Measure against ejabberd and Prosody, then the cluster; WORKLOADS=chat SERVERS=monktalk,ejabberd for a part
	@PYTHONPATH=app $(PY) -m bench $(if $(WORKLOADS),--workloads $(WORKLOADS)) $(if $(SERVERS),--servers $(SERVERS))
	@$(if $(WORKLOADS)$(SERVERS),:,$(MAKE) --no-print-directory bench-cluster)

bench-cluster: $(DEVELOPMENT) ## Measure workers, bus and delivery guarantee alone; PARTS=messages,homes for a part
	@PYTHONPATH=app $(PY) -m bench.cluster $(if $(PARTS),--parts $(PARTS))

docs: $(APPLIANCE) ## Write the references of the configurations and of the roles' variables from the code
	@mkdir -p docs/reference
	@$(PY) -m monktalk.common.config monktalk.xmpp.configuration:schema > docs/reference/configuration.md.new
	@mv docs/reference/configuration.md.new docs/reference/configuration.md
	@$(PY) -m monktalk.common.config monktalk.auth.settings:schema > docs/reference/auth-service.md.new
	@mv docs/reference/auth-service.md.new docs/reference/auth-service.md
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" .config/role-docs.sh >/dev/null

lock: $(DEVELOPMENT) ## Resolve and hash the dependencies anew; UPGRADE=1 takes the newest
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(LOCK) $(if $(UPGRADE),--upgrade) --group build -o requirements.txt
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(LOCK) $(if $(UPGRADE),--upgrade) --group dev -c requirements.txt \
		-o requirements-dev.txt
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(LOCK) $(if $(UPGRADE),--upgrade) --group appliance -c requirements-dev.txt \
		-o requirements-appliance.txt

clean: ## Remove what the tools made, the virtual environment too; ./var with its data stays
	@rm -rf $(VENV) build dist app/src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find app -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY):
	@.config/venv.sh $(VENV)

# setuptools is among the locked packages: building the project itself fetches nothing.
$(RUNTIME): requirements.txt pyproject.toml | $(PY)
	@echo "Installing what MonkTalk needs into $(VENV); this happens once."
	@$(PIP) --require-hashes --requirement requirements.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEVELOPMENT): requirements-dev.txt $(RUNTIME)
	@$(PIP) --require-hashes --requirement requirements-dev.txt
	@touch $@

$(APPLIANCE): requirements-appliance.txt $(DEVELOPMENT)
	@echo "Installing Ansible and what tests the appliance into $(VENV); this happens once."
	@$(PIP) --require-hashes --requirement requirements-appliance.txt
	@touch $@
