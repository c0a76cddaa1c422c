"""Pictures decoded by the VAE of `vae` in overlapping tiles, two at a time and one at a time."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from diffusers import AutoencoderKL  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from common import GOLDEN, case_folder, draw, save_case  # noqa: E402

# Tiles of 8 latents begin every 6 and blend over 8 pixels. The last row and column of tiles are one latent
# (4 pixels) long, less than the blend.
TILE_PX = 32
LATENTS = (2, 4, 7, 13)


def load():
    source = GOLDEN / "vae"
    vae = AutoencoderKL.from_config(AutoencoderKL.load_config(str(source / "config.json"))).eval()
    vae.load_state_dict(load_file(str(source / "weights.safetensors")), strict=True)
    return vae


def main():
    folder = case_folder(__file__)
    vae = load()
    if vae.tile_sample_min_size != TILE_PX:
        raise SystemExit("the tile is the sample_size of the configuration")
    latents = draw(LATENTS, 411)
    # Less than a tile in height, a row of three tiles.
    low = draw((1, 4, 5, 13), 412)
    with torch.no_grad():
        whole = vae.decode(latents).sample
        vae.enable_tiling()
        decoded = vae.decode(latents).sample
        vae.enable_slicing()
        sliced = vae.decode(latents).sample
        decoded_low = vae.decode(low).sample
    if not torch.allclose(decoded, sliced, atol=1e-5):
        raise SystemExit("slices differ from the batch")
    print(f"  tiles against the whole: {(decoded - whole).abs().max():.3g}")
    save_case(
        folder,
        {
            "latents": latents,
            "decoded": decoded,
            "low.latents": low,
            "low.decoded": decoded_low,
            "tile_px": torch.tensor(float(TILE_PX)),
        },
    )


if __name__ == "__main__":
    main()
