# `just` lists the recipes, cheapest check first in `just check`.

default:
    @just --list

# Everything that must pass before a change is merged.
check: fmt typos clippy deny doc test doctest

fmt:
    cargo fmt --all --check

typos:
    typos

clippy:
    cargo clippy --release --workspace --all-targets -- -D warnings

deny:
    cargo deny check

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps

test:
    cargo nextest run --release --workspace

doctest:
    cargo test --release --workspace --doc

# The tests with nothing but cargo.
test-plain:
    cargo test --release --workspace

# Makes the golden files again; needs Python and the packages of scripts/golden/requirements.txt.
golden:
    scripts/golden/make_all.sh

# Holds the program against diffusers and PEFT on random models of each family; needs the same packages.
interchange:
    cargo build --release --bin populate
    "${PYTHON:-python3}" scripts/check_interchange.py --populate target/release/populate

# One training step of a random UNet of Stable Diffusion 1.5 against PEFT; needs them and 12 GiB of memory.
full-size:
    scripts/check_full_size.sh

# The tests on an NVIDIA card; needs CUDA at run time.
gpu:
    cargo test --release --features cli/cuda,acceptance/cuda gpu::

# Compiles the CUDA build without having CUDA.
check-cuda:
    cargo check --release --workspace --all-targets --features cli/cuda,acceptance/cuda,cli/download

# Every known answer as a distribution over 200 seeds, so that a lucky seed hides nothing; the better part of an hour.
known-answers:
    cargo run --release --bin populate -- census --kat all --seeds 200

# Known answers beside scipy, statsmodels and scikit-bio; needs the packages of scripts/golden/census/requirements.txt.
cross-check:
    cargo run --release --bin populate -- census --kat all --json | "${PYTHON:-python3}" scripts/census_xcheck.py

# Writes the JSON Schemas of recipes, which editors read, and of census.json.
schema:
    cargo run --release --bin populate -- schema recipe > recipes/schema.json
    cargo run --release --bin populate -- schema census > eval/schema.json

# populate beside diffusers and PEFT, by turns; makes a Python environment in .peer the first time.
bench:
    scripts/bench/side_by_side

# Each op by itself.
bench-ops:
    cargo bench -p acceptance --bench ops

# Trains a base like the embedded one, and its evaluator, from nothing; hours on a CPU.
postcards:
    scripts/make-postcards.sh
