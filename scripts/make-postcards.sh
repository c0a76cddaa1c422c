#!/usr/bin/env bash
# Makes the embedded base from nothing: autoencoder, evaluator, UNet with text encoder, model card.
# A finished part is kept and an interrupted training goes on where it stopped, so the script can be started again.
#   scripts/make-postcards.sh [auto|cpu|cuda]        (POPULATE=path/to/populate uses a finished binary)
set -euo pipefail
cd "$(dirname "$0")/.."
device=${1:-auto}
base=checkpoints/postcards

if [ -z "${POPULATE:-}" ]; then
    features=()
    [ "$device" = cuda ] && features=(--features cli/cuda)
    cargo build --release --bin populate "${features[@]}"
    POPULATE=target/release/populate
fi

part() { # weights that the part writes, its recipe
    if [ -e "$base/$1" ]; then
        echo "kept: $base/$1"
    else
        "$POPULATE" train "recipes/postcards/$2" --device "$device"
    fi
}

part vae/diffusion_pytorch_model.safetensors vae.yaml
part evaluator/model.safetensors clip-evaluator.yaml
part unet/diffusion_pytorch_model.safetensors unet.yaml
"$POPULATE" doctor --base --folder "$base" --model-card "$base/README.md" --device "$device"
