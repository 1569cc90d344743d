# One command for each chore; `make` alone lists them.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
FILE ?= schemas/examples/minimal.yaml
SCENARIO ?= two-homes
ANSIBLE := roles playbooks tests/roles/playbooks
ARGS ?=
export PYTHON

# ---------------------------------------------------------------- preparing

# A stamp is as new as the locks it was made from, so that a prepared clone starts at once.
$(VENV)/.run: requirements-build.lock requirements.lock pyproject.toml .ci/prepare
	@.ci/prepare run

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	@.ci/prepare dev

.PHONY: venv
venv: $(VENV)/.run  ## make .venv from the locks (PYTHON=… chooses the interpreter)
	@echo "==> $(VENV) is ready: $(BIN)/appliance"

# ---------------------------------------------------------------- using

.PHONY: run
run: $(VENV)/.run  ## start the appliance in the foreground (FILE=… another declaration)
	@exec $(BIN)/appliance run $(FILE) $(ARGS)

.PHONY: lab
lab: $(VENV)/.run  ## two nodes behind two NATs shake hands (SCENARIO=… another one)
	@.ci/prepare lab
	@exec $(BIN)/appliance lab run $(SCENARIO) $(ARGS)

.PHONY: image
image: FILE = schemas/examples/home-pi.yaml
image: $(VENV)/.dev  ## a bootable image in build/ from FILE=… (root; ARGS="--authorized-keys FILE" and more)
	@.ci/prepare image
	@exec $(BIN)/appliance image build $(FILE) --out build $(ARGS)

.PHONY: image-all
image-all: $(VENV)/.dev  ## the images of all targets, built and booted, and a table of what came out (root)
	@.ci/prepare image
	@exec $(BIN)/python -m tests.images $(ARGS)

# ---------------------------------------------------------------- judging

.PHONY: test
test: $(VENV)/.dev  ## linters, type checker and every test (ARGS=… goes to pytest)
	@.ci/prepare lab
	@.ci/prepare image
	@tests/interop/build
	@failed=; \
	check() { echo "==> $$*"; "$(BIN)/$$@" || failed="$$failed [$$*]"; }; \
	check ruff check --quiet .; \
	check ruff format --check --quiet .; \
	check mypy; \
	test -z "$$failed" || echo "==> FAILED so far:$$failed; the tests run all the same"; \
	echo "==> pytest $(ARGS)"; \
	$(BIN)/python -m pytest $(ARGS) && test -z "$$failed"

.PHONY: roles
roles: $(VENV)/.dev  ## molecule: every role on a machine of its own (root; ARGS="-k firewall" one of them)
	@.ci/prepare lab
	@.ci/prepare image
	@$(BIN)/python -m pytest -m roles tests/roles $(ARGS)

.PHONY: judges
judges: $(VENV)/.dev  ## OpenSCAP and Lynis look at a machine before and after the roles (root)
	@.ci/prepare image
	@$(BIN)/python -m tests.judges $(ARGS)

.PHONY: peers
peers:  ## build the go and js peers of the interop tests (tests/interop/build rust: that too)
	@tests/interop/build

.PHONY: bench
bench: $(VENV)/.dev  ## measure us beside go, rust, js and stock py peers: docs/benchmarks.md (ARGS=--quick)
	@for peer in go js rust; do tests/interop/build $$peer || echo "==> without the $$peer peer its cells fail"; done
	@exec $(BIN)/python -m tests.bench $(ARGS)

.PHONY: capacity
capacity: $(VENV)/.dev  ## load a daemon to its caps within the limits of three machines (root; ARGS=router-512m)
	@exec $(BIN)/python -m tests.bench.capacity $(ARGS)

.PHONY: lint
lint: $(VENV)/.dev  ## ruff: rules and format; ansible-lint: roles and playbooks
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ansible-lint --offline --profile production $(ANSIBLE)

.PHONY: fmt
fmt: $(VENV)/.dev  ## let ruff format and repair
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

.PHONY: type
type: $(VENV)/.dev  ## mypy
	@$(BIN)/mypy

# ---------------------------------------------------------------- generating

.PHONY: schema
schema: $(VENV)/.run  ## write the JSON Schema and the reference anew from the types
	@$(BIN)/python -m appliance.declaration.schema >$(VENV)/schema.json
	@mv $(VENV)/schema.json schemas/appliance.v1.schema.json
	@$(BIN)/python -m appliance.declaration.reference schemas/README.md

.PHONY: proto
proto: $(VENV)/.dev  ## write the protobuf code anew from proto/
	@$(BIN)/python -m grpc_tools.protoc --proto_path=proto \
		--python_out=appliance/wire/pb --pyi_out=appliance/wire/pb $(wildcard proto/*.proto)

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock"

.PHONY: lock
lock: $(VENV)/.dev  ## resolve the lock files anew (ARGS=--upgrade to move the pins)
	@$(COMPILE) $(ARGS) --group build -o requirements-build.lock
	@$(COMPILE) $(ARGS) -c requirements-build.lock pyproject.toml -o requirements.lock
	@$(COMPILE) $(ARGS) -c requirements.lock pyproject.toml --group dev -o requirements-dev.lock

.PHONY: clean
clean:  ## remove .venv and every cache
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
