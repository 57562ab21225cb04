# What there is to do: `just --list`.

# Format, lints and documentation.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# Long functions and files, import cycles, shared names, predicates that write.
counts *options:
    .ci/counts {{ options }}

# Every test; with options, only some: `just test --test it drain`.
test *options:
    cargo test {{ options }}

# Three backends and the balancer; options as in `tinylb demo --help`.
demo *options:
    cargo run --release -- demo {{ options }}

# Compare with nginx and HAProxy, as bench/README.md tells.
bench *options:
    bench/compare {{ options }}

# Which crate has the cost of a request, as bench/README.md tells: `just profile --case h2`.
profile *options:
    bench/profile {{ options }}

# Backends that fall ill, as bench/README.md tells: `just chaos --short`.
chaos *options:
    bench/chaos {{ options }}

# More than backends can do, as bench/README.md tells: `just overload --short`.
overload *options:
    bench/overload {{ options }}

# The slowest requests with each policy, as bench/README.md tells.
tail *options:
    bench/tail {{ options }}

# Licences, bans, sources and advisories of dependencies; needs cargo-deny.
deny:
    cargo deny check

# Everything that must hold before a change lands.
ci:
    .ci/run
