# Every target sets up what it needs; nothing is installed twice.
#   make run    the notebooks, headless: figures and records in data/output/, all of it on one page, report.html
#   make bench  three networks x batch sizes 1 and 8: speed, memory, accuracy where there are trained weights; a table.
#               make bench BENCH="--model HRNet --batch-size 1,4" for others (python -m helpers bench --help)
#   make coco   the published table: official weights and COCO val2017 (1.4 GB to fetch), three networks in three
#               precisions, ours beside the published figures; resumes after a stop. COCO="--image-num 200": a sample
#   make scale  notebook 5, from one device to many, with Ray, which it installs (requirements-scale.txt); docs/scale.md
#   make test   all tests, with ruff; installs Ray, and as root on Debian Chromium, for its own tests
#   make lab    JupyterLab on the notebooks
#   make mlu    on an MLU card, inside a MagicMind container: all that the sample does, see docs/mlu.md.
#               make mlu IMAGES=1000 WEIGHTS=random MLU_MODELS="HRNet ResNet50" for fewer images, other weights, models
#   make lint   ruff on code and notebooks, and the rules for notebooks        make format   ruff's fixes
#   make setup  the virtual environment alone; every other target but mlu begins with it
#   make clean  remove what was made at run time, but not what was downloaded or rendered
#   make distclean   and the virtual environment

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT := data/output
BENCH :=
COCO :=
NOTEBOOKS := 01_export 02_build 03_infer 04_benchmark 05_scale_out
# A cell that hangs ends the run: papermill itself waits forever.
CELL_TIMEOUT := 900

export PYTHONUTF8 := 1
export PYTHONPATH := $(CURDIR)
export JUPYTER_PLATFORM_DIRS := 1

.PHONY: run scale bench coco test lab mlu lint format clean distclean setup

setup: $(VENV)/ready

# The stamp is newer than the requirements once both installs went through. The decoder is compiled here, half a minute,
# so that nobody waits for it later. ipykernel warns at each start that it talks to papermill, on this machine's
# loopback, without encryption: hence its log level.
$(VENV)/ready: requirements.txt requirements-mmpose.txt
	@echo "== setting up $(VENV) (a few minutes the first time)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	echo "setuptools<81" > $(VENV)/build-constraints.txt
	PIP_CONSTRAINT=$(CURDIR)/$(VENV)/build-constraints.txt \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-mmpose.txt
	mkdir -p $(VENV)/etc/ipython
	echo "c.IPKernelApp.log_level = 'ERROR'" > $(VENV)/etc/ipython/ipython_kernel_config.py
	$(BIN)/python -c "from helpers.pose import decode; decode.warm_up()"
	touch $@

# For the tests alone: Ray, and Chromium, in which the page and notebook 3 are looked at.
$(VENV)/ready-test: $(VENV)/ready requirements-scale.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-scale.txt
	@for name in chromium chromium-browser google-chrome; do if command -v $$name >/dev/null; then exit 0; fi; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "== installing Chromium"; \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y chromium >/dev/null && exit 0; \
	fi; \
	echo "Without Chromium (on Debian: apt-get install chromium) the browser tests are skipped."
	touch $@

run: setup
	@mkdir -p $(OUT)
	@set -e; for name in $(NOTEBOOKS); do \
	  echo "== $$name"; start=$$(date +%s); \
	  $(BIN)/papermill notebooks/$$name.ipynb $(OUT)/$$name.ipynb --cwd notebooks --kernel python3 \
	    --execution-timeout $(CELL_TIMEOUT) --log-level WARNING; \
	  echo "== $$name took $$(( $$(date +%s) - start )) s"; \
	done
	@$(BIN)/python -m helpers report

scale: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-scale.txt
	@$(MAKE) --no-print-directory run NOTEBOOKS=05_scale_out

bench: setup
	$(BIN)/python -m helpers bench $(BENCH)

coco: setup
	$(BIN)/python -m helpers coco $(COCO)

# A process per core. Tests of a file share fixtures, so a file goes to one process; the longest (notebooks) first.
# Speeds are compared afterwards.
test: $(VENV)/ready-test lint
	$(BIN)/python -m pytest -m "not alone" --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m pytest -m alone

lab: setup
	$(BIN)/jupyter lab --notebook-dir=notebooks

# In the container's own Python: magicmind is installed there and nowhere else. Failures are listed at the end.
MLU_MODELS := HRNet ResNet50 MobileNetv2
MLU_PRECISIONS := force_float32 force_float16 qint8_mixed_float16
WEIGHTS := official

mlu:
	$(PYTHON) -m pip install --quiet -r requirements-deploy.txt pycocotools
	@failed=""; for model in $(MLU_MODELS); do for precision in $(MLU_PRECISIONS); do \
	  what="--backend magicmind --model $$model --weights $(WEIGHTS) --precision $$precision"; \
	  echo "== $$model $$precision"; \
	  for step in build "eval $(if $(IMAGES),--image-num $(IMAGES))" "perf --batch-size 1" "perf --batch-size 8"; do \
	    $(PYTHON) -m helpers $$step $$what || failed="$$failed, $$model $$precision ($$step)"; \
	  done; \
	done; done; \
	$(PYTHON) -m helpers report || true; \
	if [ -n "$$failed" ]; then echo "failed: $${failed#, }"; exit 1; fi

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tests.notebooks.lint

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(OUT) .pytest_cache .ruff_cache
	find data/models -mindepth 1 -maxdepth 1 ! -name checkpoints -exec rm -rf {} + 2>/dev/null || true
	find . -name __pycache__ -not -path './helpers/*' -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
