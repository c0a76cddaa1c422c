#!/usr/bin/env python3
"""Times the parts of a pipeline beside its UNet: AutoencoderKL of diffusers, CLIPTextModel of transformers.

    python peer_part.py decode --config sd15 --latent 32 --batch 1 --steps 3
    python peer_part.py encode --config mini --batch 8
    python peer_part.py text --config sd15 --batch 4

The other half of peer_step.py: random weights, one JSON line with the same keys. `decode` makes pixels of scaled
latents, `encode` scaled latents (the mean) of pixels, `text` the states of captions that fill the encoder. No
gradients. --save DIR writes DIR/vae or DIR/text_encoder in diffusers layout, so that another program can load the very
same weights.
"""

import argparse
import json
import platform
import resource
import statistics
import time
from importlib.metadata import version

import torch

VAES = {
    # As the VAE of the embedded base: 64 x 64 px become 16 x 16 latents.
    "mini": {
        "sample_size": 64,
        "block_out_channels": (16, 32, 64),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "scaling_factor": 0.42683,
    },
    "sd15": {
        "sample_size": 512,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "scaling_factor": 0.18215,
    },
}
TEXTS = {
    # As the text encoder of the embedded base.
    "mini": {
        "vocab_size": 707,
        "hidden_size": 128,
        "intermediate_size": 512,
        "projection_dim": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 32,
        "bos_token_id": 705,
        "eos_token_id": 706,
        "pad_token_id": 706,
    },
    # The text tower of CLIP ViT-L/14.
    "sd15": {
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "projection_dim": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    },
}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def make_vae(name, save):
    from diffusers import AutoencoderKL

    n_levels = len(VAES[name]["block_out_channels"])
    model = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * n_levels,
        up_block_types=("UpDecoderBlock2D",) * n_levels,
        **VAES[name],
    )
    if save:
        model.save_pretrained(f"{save}/vae")
    return model


def make_text(name, save):
    from transformers import CLIPTextConfig, CLIPTextModel

    model = CLIPTextModel(CLIPTextConfig(hidden_act="quick_gelu", layer_norm_eps=1e-5, **TEXTS[name]))
    if save:
        model.save_pretrained(f"{save}/text_encoder")
    return model


def vae_work(options, dtype):
    """The VAE, one round of the work, and the side of the latents."""
    config = VAES[options.config]
    factor = 2 ** (len(config["block_out_channels"]) - 1)
    side = options.latent or config["sample_size"] // factor
    vae = make_vae(options.config, options.save).to(options.device, dtype).eval()
    scale = config["scaling_factor"]

    def decode():
        latents = torch.randn(options.batch, 4, side, side, device=options.device, dtype=dtype)
        return vae.decode(latents / scale).sample

    def encode():
        shape = (options.batch, 3, side * factor, side * factor)
        pixels = torch.randn(shape, device=options.device, dtype=dtype)
        return vae.encode(pixels).latent_dist.mode() * scale

    return vae, {"decode": decode, "encode": encode}[options.work], side


def text_work(options, dtype):
    """The text encoder, one round of the work, and the number of tokens."""
    config = TEXTS[options.config]
    n_tokens, n_words = config["max_position_embeddings"], config["vocab_size"]
    encoder = make_text(options.config, options.save).to(options.device, dtype).eval()

    def encode():
        captions = torch.randint(0, n_words, (options.batch, n_tokens), device=options.device)
        return encoder(input_ids=captions).last_hidden_state

    return encoder, encode, n_tokens


def measure(options, work):
    """Seconds of every timed round."""

    def sync():
        if options.device.startswith("cuda"):
            torch.cuda.synchronize()

    times = []
    with torch.no_grad():
        for index in range(options.warmup + options.steps):
            sync()
            start = time.perf_counter()
            work()
            sync()
            if index >= options.warmup:
                times.append(time.perf_counter() - start)
    return times


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=["decode", "encode", "text"])
    parser.add_argument("--config", choices=VAES, default="mini")
    parser.add_argument("--latent", type=int, help="latent side; default: the configuration's; not for text")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", metavar="DIR")
    return parser.parse_args()


def main():
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    make = text_work if options.work == "text" else vae_work
    model, work, size = make(options, DTYPES[options.dtype])
    times = measure(options, work)
    is_text, on_card = options.work == "text", options.device.startswith("cuda")
    median = statistics.median(times)
    record = {
        "side": "transformers" if is_text else "diffusers",
        "work": options.work,
        "config": options.config,
        ("tokens" if is_text else "latent"): size,
        "batch": options.batch,
        "dtype": options.dtype,
        "device": torch.cuda.get_device_name() if on_card else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "compile": False,
        "forward_only": True,
        "median_s": round(median, 5),
        "min_s": round(min(times), 5),
        "max_s": round(max(times), 5),
        "images_per_s": round(options.batch / median, 3),
        "peak_device_mib": round(torch.cuda.max_memory_allocated() / 2**20, 1) if on_card else None,
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "total": sum(parameter.numel() for parameter in model.parameters()),
        # Importing what the work did not need would count in the memory.
        "torch": torch.__version__,
        "diffusers": version("diffusers"),
        "transformers": version("transformers"),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
