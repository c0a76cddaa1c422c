#!/bin/sh
# Makes every case again, in the order in which they need one another.
# Usage: PYTHON=.venv/bin/python scripts/golden/make_all.sh
set -eu
cd "$(dirname "$0")"
export PYTHONDONTWRITEBYTECODE=1
for case in unet_sd1 unet_sd1_odd unet_sd1_shallow unet_sd2 unet_sdxl vae vae_tiled clip_text clip_text_projection \
    clip_vision clip_joint tokenizer sdxl_text samplers full_grad lora_sd1 lora_text train_step pipeline \
    single_file family_sd1 family_sd2 family_sdxl ops; do
    echo "$case"
    "${PYTHON:-python3}" "$case/make.py"
done
