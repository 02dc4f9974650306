# Two commands do everything on a fresh Linux machine: `make train` and `make test`.
#
# Everything lands in $(VENV), build/ and dist/. What is installed and tested is the wheel.

PYTHON ?= python3
VENV ?= .venv
CUDA ?= AUTO# AUTO | ON | OFF
ARGS ?=# alpagym overrides: make train ARGS="grpo.group_size=32 device=cuda"
PYTEST_ARGS ?=
WERROR ?= $(if $(CI),ON,OFF)
MAX_WHEEL_BYTES := 10485760

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := CMakeLists.txt pyproject.toml $(wildcard LICENSE README.md) \
	$(shell find csrc cuda python -type f -not -name '*.pyc' -not -name '*.so')
CXX_FILES := $(shell find csrc cuda tests/cpp -name '*.h' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu')
.DEFAULT_GOAL := help

.PHONY: help
help:  ## print this list
	@grep -hE '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:[^#]*## */\t/' | expand -t 12

.PHONY: train
train: install  ## install, then run the main job: imitate, evaluate, GRPO, evaluate, report
	$(BIN)/alpagym train $(ARGS)

.PHONY: test
test: install  ## install, then run the whole test suite on the built wheel
	@echo "alpagym: running the tests"
	$(BIN)/python -m pytest -n auto --maxprocesses=8 --dist=worksteal $(PYTEST_ARGS)

.PHONY: heavy
heavy: install  ## run the tests that take minutes
	$(BIN)/python -m pytest -m heavy --heavy $(PYTEST_ARGS)

.PHONY: cosmos
cosmos: dist/.built  ## run Cosmos-RL's control plane on the CPU: docs/cosmos.md (2 GB, minutes)
	@PYTHON="$(PYTHON)" sh scripts/cosmos_cpu.sh dist/alpagym-*.whl

.PHONY: bench
bench: install  ## run the benchmarks; one JSON into benchmarks/results
	$(BIN)/alpagym bench json=benchmarks/results/ $(ARGS)

.PHONY: install
install: $(VENV)/.installed  ## virtual environment, dependencies, build, install

.PHONY: wheel
wheel: dist/.built  ## build dist/alpagym-*.whl and check its size

.PHONY: lint
lint: $(VENV)/.dependencies  ## ruff, clang-format, mypy
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	@$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)
	$(BIN)/mypy

.PHONY: format
format: $(VENV)/.dependencies  ## rewrite sources the way lint wants them
	$(BIN)/ruff check --quiet --fix .
	$(BIN)/ruff format --quiet .
	@$(BIN)/clang-format -i $(CXX_FILES)

.PHONY: clean
clean:  ## remove everything that make has built
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache

# Dependencies and build tools, pinned. Installed apart from alpagym, so that a change in the
# sources costs a build only.
$(VENV)/.dependencies: pyproject.toml constraints.txt scripts/install_dependencies.sh
	@PYTHON="$(PYTHON)" sh scripts/install_dependencies.sh $(VENV)
	@touch $@

# Changes when the options of the build do, and the wheel with it.
OPTIONS := CUDA=$(CUDA) WERROR=$(WERROR)
.PHONY: FORCE
dist/.options: FORCE
	@mkdir -p dist
	@echo "$(OPTIONS)" | cmp -s - $@ || echo "$(OPTIONS)" > $@

dist/.built: $(VENV)/.dependencies dist/.options $(SOURCES)
	@echo "alpagym: building (CUDA $(CUDA); the first time takes a few minutes where nvcc is found)"
	@rm -f dist/alpagym-*.whl
	@$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist \
		--config-settings=cmake.define.ALPAGYM_CUDA=$(CUDA) \
		--config-settings=cmake.define.ALPAGYM_WERROR=$(WERROR) .
	@for wheel in dist/alpagym-*.whl; do size=$$(wc -c < $$wheel); \
		echo "alpagym: built $$wheel, $$size bytes"; \
		test $$size -le $(MAX_WHEEL_BYTES) || \
		{ echo "alpagym: $$wheel has $$size bytes, expected at most $(MAX_WHEEL_BYTES)" >&2; exit 1; }; done
	@touch $@

$(VENV)/.installed: dist/.built
	@$(PIP) install --quiet --no-deps --force-reinstall dist/alpagym-*.whl
	@$(BIN)/python -c "import alpagym; \
		print('alpagym: installed in $(VENV),', 'CPU and CUDA' if alpagym.cuda_built() else 'CPU only')"
	@touch $@
