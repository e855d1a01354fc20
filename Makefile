# `make test` installs what the tests need (Debian packages, when missing) and runs all of them.
.PHONY: test lint bench packages

test: packages
	cargo test --locked --no-fail-fast

lint:
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings

bench: packages
	cargo build --release --locked
	benches/compare

packages:
	tests/tools/packages
