"""The autoencoder in miniature: moments, mode and decoded pixels, and the gradients of a training loss."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from diffusers import AutoencoderKL  # noqa: E402

from common import Tap, case_folder, draw, gradients, randomize, save_case, save_model, save_tensors  # noqa: E402

CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (8, 8, 16),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 32,
    "scaling_factor": 0.31,
}
KL_WEIGHT = 0.01


def main():
    folder = case_folder(__file__)
    vae = AutoencoderKL(**CONFIG).eval()
    randomize(vae, 401)
    pixels = torch.tanh(draw((2, 3, 16, 32), 402))
    latents = draw((2, 4, 4, 8), 403)
    tap = Tap(
        vae,
        ["encoder.conv_in", "encoder.down_blocks.0", "encoder.down_blocks.1", "encoder.down_blocks.2"]
        + ["encoder.mid_block", "encoder", "quant_conv"],
    )
    with torch.no_grad():
        posterior = vae.encode(pixels).latent_dist
    intermediate = tap.close()
    tap = Tap(vae, ["post_quant_conv", "decoder.mid_block", "decoder.up_blocks.0", "decoder.up_blocks.2"])
    with torch.no_grad():
        decoded = vae.decode(latents).sample
    intermediate |= tap.close()

    # A training loss: reconstruction from the posterior with given noise, plus the KL term.
    noise = draw((2, 4, 4, 8), 404)
    trained = vae.encode(pixels).latent_dist
    sampled = trained.mean + trained.std * noise
    reconstruction = vae.decode(sampled).sample
    mse = torch.nn.functional.mse_loss(reconstruction, pixels)
    kl = trained.kl().sum() / trained.mean.numel()
    loss = mse + KL_WEIGHT * kl
    loss.backward()
    save_model(vae, folder)
    save_tensors(folder / "gradients.safetensors", gradients(vae))
    save_case(
        folder,
        {
            "pixels": pixels,
            "mean": posterior.mean,
            "logvar": posterior.logvar,
            "std": posterior.std,
            "latents": latents,
            "decoded": decoded,
            "noise": noise,
            "reconstruction": reconstruction,
            "kl_weight": torch.tensor(KL_WEIGHT),
            "mse": mse,
            "kl": kl,
            "loss": loss,
        }
        | intermediate,
    )


if __name__ == "__main__":
    main()
