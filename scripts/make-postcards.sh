#!/usr/bin/env bash
# Makes a base like the embedded one from nothing: autoencoder, evaluator, UNet with text encoder, model card.
# A finished part is kept and an interrupted training goes on where it stopped, so the script can be started again.
#   scripts/make-postcards.sh [auto|cpu|cuda] [FOLDER]      (POPULATE=path/to/populate uses a finished binary)
# FOLDER, relative to the repository, is `runs/postcards` if absent. To ship the result, copy it over `checkpoints/postcards`.
set -euo pipefail
cd "$(dirname "$0")/.."
device=${1:-auto}
base=${2:-runs/postcards}

if [ -z "${POPULATE:-}" ]; then
    features=()
    [ "$device" = cuda ] && features=(--features cli/cuda)
    cargo build --release --bin populate "${features[@]}"
    POPULATE=target/release/populate
fi

part() { # weights that the part writes, its recipe, what else the recipe is told
    local weights=$base/$1 recipe=recipes/postcards/$2
    shift 2
    if [ -e "$weights" ]; then
        echo "kept: $weights"
    else
        "$POPULATE" train "$recipe" --runs "$base-training" --device "$device" "$@"
    fi
}

part vae/diffusion_pytorch_model.safetensors vae.yaml --set "into=$base/vae"
part evaluator/model.safetensors clip-evaluator.yaml --set "into=$base/evaluator"
part unet/diffusion_pytorch_model.safetensors unet.yaml --set "into=$base" --set "pretrain.unet.vae=$base/vae"
[ -e "$base/README.md" ] || cp checkpoints/postcards/README.md "$base/README.md"
"$POPULATE" doctor --base --folder "$base" --model-card "$base/README.md" --device "$device"
