# nattrail: `make run` shows it on a throw-away gateway, `make test` proves it. Both install the packages that they need on
# a Debian system with a Rust toolchain. Steps that need root use sudo when you are not root; builds run as you, even
# under `sudo make`.

BUILD_PACKAGES := gcc libc6-dev libmnl-dev libnftnl-dev libsqlite3-dev pkg-config
RUN_PACKAGES := conntrack iproute2 iputils-ping nftables socat
DEB_PACKAGES := build-essential debhelper dpkg-dev
TEST_PACKAGES := $(RUN_PACKAGES) $(DEB_PACKAGES) fish golang-go golang-golang-x-mod-dev lintian man-db mandoc mmdebstrap \
  nfdump openssl piuparts prometheus python3 python3-venv rsyslog strace systemd systemd-container tshark util-linux zsh
# Without fonts pages have no text to measure.
ENGINE_PACKAGES := chromium default-jre-headless fonts-dejavu-core poppler-utils python3-venv util-linux
BENCH_PACKAGES := conntrack iproute2 nftables
# The programs with which nattrail is compared; the row of a missing one is left out.
PEER_PACKAGES := natlog ulogd2 ulogd2-sqlite3

# The targets of tests/fuzz that `make fuzz` runs, and for how long each. A stable toolchain has SanitizerCoverage, too.
FUZZ := $(basename $(notdir $(wildcard tests/fuzz/src/bin/*.rs)))
SECONDS := 60
FUZZ_FLAGS := -Copt-level=1 -Cdebuginfo=0 -Cdebug-assertions -Ccodegen-units=1 -Cpasses=sancov-module \
  $(addprefix -Cllvm-args=-sanitizer-coverage-,level=4 inline-8bit-counters pc-table trace-compares)

TARGET := $(or $(CARGO_TARGET_DIR),target)

ifeq ($(shell id -u),0)
  AS_ROOT :=
  ifneq ($(filter-out root,$(SUDO_USER)),)
    USER_HOME := $(shell getent passwd '$(SUDO_USER)' | cut -d: -f6)
    AS_USER := runuser -u '$(SUDO_USER)' -- env HOME='$(USER_HOME)' PATH='$(USER_HOME)/.cargo/bin:$(PATH)'
    TEST_AS_ROOT := yes
  endif
else
  AS_ROOT := sudo
  TEST_AS_ROOT := yes
endif

# rustup puts cargo here; only the next login adds it to PATH.
export PATH := $(PATH):$(HOME)/.cargo/bin

# Test programs run as root, whichever user runs cargo: they make network namespaces.
ifdef TEST_AS_ROOT
  RUNNER := --config 'target."cfg(unix)".runner=["sudo","-E"]'
endif

.PHONY: help run test engines fresh bench fuzz build deb build-packages run-packages test-packages engine-packages \
  bench-packages deb-packages cargo sudo clean

help:
	@echo 'make run     show nattrail on a throw-away gateway made of network namespaces'
	@echo 'make test    run all tests'
	@echo 'make engines ask DuckDB, ClickHouse and Spark what the archive has, and look at the pages in Chromium'
	@echo 'make bench   measure nattrail and its peers under load; BENCH=--help says with which options; BENCH=archive the archive'
	@echo 'make fuzz    look for input that the parsers cannot take; FUZZ=config SECONDS=600 takes one of them, and its time'
	@echo 'make build   build $(TARGET)/release/nattrail'
	@echo 'make deb     build the Debian package, in $(TARGET)/deb'
	@echo 'make fresh   try these commands, as last committed, on bare Debian systems'

run: sudo build run-packages
	$(AS_ROOT) tests/demo.sh '$(TARGET)/release/nattrail'

build: build-packages cargo
	$(AS_USER) cargo build --release --locked --target-dir '$(TARGET)'

deb: build-packages deb-packages cargo
	$(AS_USER) packaging/deb/build '$(TARGET)/deb'

test: sudo build-packages test-packages cargo
ifdef TEST_AS_ROOT
	@echo 'The tests are built as you and run by root, with sudo: they make network namespaces.'
	$(AS_USER) cargo test --locked --target-dir '$(TARGET)' --no-run
endif
	$(AS_USER) cargo test --locked --no-fail-fast --target-dir '$(TARGET)' $(RUNNER)

engines: sudo build-packages engine-packages cargo
	$(AS_USER) cargo test --locked --target-dir '$(TARGET)' --test engines $(RUNNER) -- --include-ignored

# Debian 12 and 13, made in memory: this takes 4 GB of it.
fresh: sudo cargo
	@tests/packages.sh mmdebstrap
	$(AS_USER) rustup target add aarch64-unknown-linux-gnu || \
	  echo '*** The standard library for arm64 cannot be fetched: nothing is built for arm64 ***' >&2
	$(AS_USER) sh -c 'mkdir -p "$(TARGET)" && git bundle create --quiet "$(TARGET)/nattrail.bundle" HEAD'
	$(AS_ROOT) unshare --mount --pid --fork --kill-child tests/fresh.sh '$(TARGET)/nattrail.bundle' \
	  "$$($(AS_USER) rustc --print sysroot)" bookworm trixie

# This measures programs of the release profile, so it takes some minutes. BENCH goes to tests/bench/load.rs, and after
# the word `archive` to tests/bench/archive.rs, which needs a gigabyte of disk for each of its --files.
ifeq ($(firstword $(BENCH)),archive)
bench: build-packages cargo
	$(AS_USER) cargo bench --locked --target-dir '$(TARGET)' --bench archive -- \
	  --dir '$(TARGET)' $(wordlist 2,$(words $(BENCH)),$(BENCH))
else
bench: sudo build-packages bench-packages cargo
	$(AS_USER) cargo bench --locked --target-dir '$(TARGET)' --bench micro
	$(AS_USER) cargo bench --locked --target-dir '$(TARGET)' --bench load $(RUNNER) -- $(BENCH)
endif

# Each finds its corpus again in $(TARGET)/fuzz. With --target, build scripts and macros stay without the flags.
fuzz: build-packages deb-packages cargo
	for target in $(FUZZ); do $(AS_USER) env RUSTFLAGS='$(FUZZ_FLAGS)' cargo run --locked --release -p nattrail-fuzz \
	  --bin $$target --target "$$($(AS_USER) rustc --print host-tuple)" --target-dir '$(TARGET)/fuzz' -- \
	  '$(TARGET)/fuzz/'$$target -dict='$(TARGET)/fuzz/'$$target.dict -artifact_prefix='$(TARGET)/fuzz/'$$target- \
	  -max_total_time=$(SECONDS) -rss_limit_mb=1024 -timeout=10 -verbosity=0 -print_final_stats=1 || exit; done

build-packages:
	@tests/packages.sh $(BUILD_PACKAGES)

run-packages:
	@tests/packages.sh $(RUN_PACKAGES)

test-packages:
	@tests/packages.sh $(TEST_PACKAGES)

engine-packages:
	@tests/packages.sh $(ENGINE_PACKAGES)

deb-packages:
	@tests/packages.sh $(DEB_PACKAGES)

bench-packages:
	@tests/packages.sh $(BENCH_PACKAGES)
	@for package in $(PEER_PACKAGES); do tests/packages.sh $$package || \
	  echo "*** $$package cannot be installed: its row will be missing ***" >&2; done

cargo:
	@needed=$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml); \
	found=$$($(AS_USER) sh -c 'cargo --version >/dev/null && rustc --version' | cut -d ' ' -f 2); \
	printf '%s\n' "$$needed" "$$found" | sort --check=quiet --version-sort || { \
	  echo "this needs cargo and rustc $$needed or later, and found $${found:-none}: install Rust from https://rustup.rs, or" \
	    "from Debian 13 on with 'apt-get install rustup' and 'rustup default stable'; 'rustup update' renews an old one" >&2; \
	  exit 69; }

sudo:
	@[ -z '$(AS_ROOT)' ] || command -v sudo >/dev/null || \
	  { echo 'this needs root: install sudo, or run make as root' >&2; exit 77; }

clean:
	$(AS_USER) cargo clean --target-dir '$(TARGET)'
