# Everything happens in .venv; nothing outside the repository is changed.
PYTHON ?= python3
# What to install where there is no torch yet. A torch that PYTHON already has is used, never replaced.
TORCH ?= torch==2.13.0

VENV := .venv
BIN := $(VENV)/bin
HAS_TORCH := $(shell $(PYTHON) -c 'import torch' 2>/dev/null && echo yes)
CORES := $(shell nproc 2>/dev/null || echo 2)
export OMP_NUM_THREADS ?= $(CORES)
JOBS ?= $(shell n=$(CORES); [ $$n -gt 3 ] || n=3; [ $$n -lt 4 ] || n=4; echo $$n)

# One line before each step that takes long; pip shows its own progress after it.
say = @printf '\n==> %s\n'
install := $(BIN)/python -m pip install --disable-pip-version-check

.PHONY: demo test fuzz lint docs clean

demo: $(VENV)/installed-cli
	$(say) "checking twelve prompts of the built-in model, then sampling them: two minutes on two cores"
	$(BIN)/cryptomnesia demo

# File by file in three processes, or four: on two cores, too, since some wait for browsers and servers. In order, since
# those with ComfyUI in their process come last.
test: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# The property tests alone, on fresh examples and FUZZ times as many.
FUZZ ?= 20
fuzz: $(VENV)/installed-test
	CRYPTOMNESIA_FUZZ=$(FUZZ) OMP_NUM_THREADS=1 $(BIN)/python -m pytest

lint: $(VENV)/installed-test $(VENV)/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python .ci/typed.py $(VENV)/typed
	$(BIN)/pyright

# Into site/. The API pages are read from the library's source, which is found there under the name it is imported by.
docs: $(VENV)/installed-docs
	mkdir -p build/docs
	ln -sfn ../../guard build/docs/cryptomnesia
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

$(BIN)/python:
	$(say) "making $(VENV), in which everything happens: some seconds"
	$(PYTHON) -m venv $(if $(HAS_TORCH),--system-site-packages) $(VENV)
	$(say) "$(if $(HAS_TORCH),using the torch that $(PYTHON) has,installing $(TORCH): a large download that may take minutes)"
	$(if $(HAS_TORCH),,$(install) "$(TORCH)")

$(VENV)/installed-%: $(BIN)/python pyproject.toml
	$(say) "installing cryptomnesia with what '$*' needs: a minute or two"
	$(install) --editable ".[$*]"
	@touch $@

clean:
	rm -rf $(VENV) build site *.egg-info cryptomnesia-demo
