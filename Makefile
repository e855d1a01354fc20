# `make test` installs what the tests need (Debian packages, when missing) and runs all of them.
.PHONY: test lint attack accidents cluster power bench bench-all packages

# Most tests wait for servers and clocks: far more of them at once than there are processors.
test: packages
	RUST_TEST_THREADS=$$(($$(nproc) * 4)) cargo test --locked --no-fail-fast

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked

# About ten minutes; docs/security.md.
attack:
	benches/attack

# What happens to a directory of 100,000 entries on slapd, and of 5,000 on Samba: half an hour, docs/directories/snapshots.md.
accidents: packages
	cargo test --locked --test directories accidents -- --ignored --nocapture --test-threads=1

# Nodes and databases of a cluster die, freeze and come back, volumes are full, clocks are apart: an hour, as root,
# docs/cluster.md.
cluster: packages
	cargo test --locked --test storage cluster::rounds -- --ignored --nocapture

# All power cuts, of which `make test` tries a quarter: about five minutes.
power: packages
	ALL_POWER_CUTS=1 cargo test --locked --test storage cut

# About 50 minutes; docs/performance.md. bench-all adds the slow disk and the three curves.
bench: packages
	benches/compare

bench-all: packages
	benches/compare --all

packages:
	tests/tools/packages
