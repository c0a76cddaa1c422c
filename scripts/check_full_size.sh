#!/bin/sh
# A random SD 1.5 UNet of full size: populate loads it within 1.15 times its size in f32, and a training step on the CPU
# takes at most 24 GiB and has PEFT's loss and gradients. First diffusers and PEFT, then populate: never both at once.
# Usage: PYTHON=.venv/bin/python scripts/check_full_size.sh [SIDE OF THE LATENTS, 64 unless given]
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# The whole workspace, so that no dependency is built a second time with other features.
cargo build --release --locked --workspace --example full_size_step
"${PYTHON:-python3}" scripts/check_full_size.py "$folder" --side "${1:-64}"
target/release/examples/full_size_step "$folder"
