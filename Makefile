# make run     the app (PORT=7999 picks the port)      make test    every test, two files at a time
# make lint    ruff and pyright                        make town    train the built-in family again
# make paper   the paper's comparison on Town: trains, merges, scores, writes docs/paper.md; may be stopped anywhere
# make bench   speed and memory against other tools (SIZE=tiny|small|mid|large, PEERS=their Python)
# make bench-page   the page in a browser: time to the first picture, and from a slider to its picture
# The first Python that runs and is 3.11 or 3.12.
FITS := import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do $$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: run test lint town paper venv bench bench-page
SIZE ?= small

run: .venv/installed
	@$(BIN)/python app.py

venv: .venv/installed-dev

test: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --no-loadscope-reorder

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/pyright

town: .venv/installed
	$(BIN)/python -m assets.town.make

paper: .venv/installed
	$(BIN)/python -m benchmarks.paper

# Torch goes first: whatever build is chosen here then satisfies the range in requirements.txt.
.venv/installed: requirements.txt
	@$(or $(PYTHON),false) -c '$(FITS)' \
		|| { echo "Mergescope needs Python 3.11 or 3.12: make run PYTHON=/path/to/python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet -r requirements.txt
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(BIN)/pip install --quiet -r requirements-dev.txt
	@touch $@

bench: .venv/installed-dev
	$(BIN)/python -m benchmarks.bench --size $(SIZE) $(if $(PEERS),--peers $(PEERS))

bench-page: .venv/installed-dev
	$(BIN)/python -m benchmarks.page
