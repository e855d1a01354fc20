# `make test` installs what the tests need (Debian packages, when missing) and runs all of them.
.PHONY: test lint attack bench bench-all packages

# Most tests wait for servers and clocks: more of them at once than there are processors.
test: packages
	RUST_TEST_THREADS=$$(($$(nproc) * 2)) cargo test --locked --no-fail-fast

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

# About ten minutes; docs/security.md.
attack:
	benches/attack

# About 50 minutes; docs/performance.md. bench-all adds the slow disk and the three curves.
bench: packages
	benches/compare

bench-all: packages
	benches/compare --all

packages:
	tests/tools/packages
