"""Conditioning of SDXL (both text encoders, pooled text, sizes) and of SD 1.x with clip skip, by the pipelines."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import json  # noqa: E402
from types import SimpleNamespace  # noqa: E402

import torch  # noqa: E402
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline  # noqa: E402
from transformers import (  # noqa: E402
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from common import GOLDEN, case_folder, draw, randomize, save_case, save_model  # noqa: E402
from unet_cases import load  # noqa: E402

PROMPTS = ["a red lighthouse at night!", "two boats!! in the harbour, ink hatching", ""]
NEGATIVES = ["a mosaic", "", "blurred!"]
# The widths add up to the 16 of `unet_sdxl`, whose pooled text is 20 wide.
FIRST = {"hidden_size": 6, "num_hidden_layers": 3, "num_attention_heads": 2, "hidden_act": "quick_gelu"}
SECOND = {"hidden_size": 10, "num_hidden_layers": 2, "num_attention_heads": 5, "hidden_act": "gelu"}
POOLED = 20
# [height, width], [top, left], [height, width], all different.
ORIGINAL, CROP, TARGET = (1200, 900), (24, 40), (1152, 832)
TIMESTEP = 481


def encoder(model, settings, projection, vocabulary, seed):
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        intermediate_size=4 * settings["hidden_size"],
        projection_dim=projection,
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
        **settings,
    )
    built = model(config).eval()
    randomize(built, seed)
    return built


def sd1(tokenizer, text_encoder):
    """Text states of SD 1.x: clip_skip k of diffusers leaves the last k layers out, then applies the final norm."""
    pipeline = StableDiffusionPipeline(
        vae=None,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=None,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    if not hasattr(text_encoder, "text_model"):
        # transformers >= 5.6 has no inner model, and diffusers 0.42.1 asks it for the final norm.
        text_encoder.__dict__["text_model"] = SimpleNamespace(final_layer_norm=text_encoder.final_layer_norm)
    states = {}
    for skip in (None, 1, 2):
        embeds, negative = pipeline.encode_prompt(PROMPTS, "cpu", 1, True, NEGATIVES, clip_skip=skip)
        states[f"sd1.skipped_{skip or 0}"] = embeds
        if skip is None:
            states["sd1.negative"] = negative
    return states


def sdxl(tokenizers, encoders):
    unet, _ = load(GOLDEN / "unet_sdxl")
    pipeline = StableDiffusionXLPipeline(
        vae=None,
        text_encoder=encoders[0],
        text_encoder_2=encoders[1],
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=unet,
        scheduler=None,
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    states, negative, pooled, negative_pooled = pipeline.encode_prompt(
        PROMPTS, device="cpu", negative_prompt=NEGATIVES
    )
    _, zeros, _, zeros_pooled = pipeline.encode_prompt(PROMPTS, device="cpu")
    if zeros.any() or zeros_pooled.any():
        raise SystemExit("the pipeline holds no zeros against the prompt")
    time_ids = pipeline._get_add_time_ids(ORIGINAL, CROP, TARGET, torch.float32, POOLED)
    sample = draw((3, 4, 8, 12), 425)

    def forward(context, text_embeds):
        added = {"text_embeds": text_embeds, "time_ids": time_ids.repeat(3, 1)}
        return unet(sample, TIMESTEP, encoder_hidden_states=context, added_cond_kwargs=added).sample

    return {
        "sdxl.states": states,
        "sdxl.pooled": pooled,
        "sdxl.negative": negative,
        "sdxl.negative_pooled": negative_pooled,
        "sdxl.time_ids": time_ids,
        "sdxl.sample": sample,
        "sdxl.timestep": torch.tensor(float(TIMESTEP)),
        "sdxl.output": forward(states, pooled),
        # One prompt for all pictures, held against zeros.
        "sdxl.conditional": forward(states[:1].repeat(3, 1, 1), pooled[:1].repeat(3, 1)),
        "sdxl.unconditional": forward(zeros, zeros_pooled),
    }


def main():
    folder = case_folder(__file__)
    names = ("pad_end", "pad_exclamation")
    tokenizers = [CLIPTokenizer.from_pretrained(str(GOLDEN / "tokenizer" / name)) for name in names]
    encoders = [
        encoder(CLIPTextModel, FIRST, 12, len(tokenizers[0]), 421),
        encoder(CLIPTextModelWithProjection, SECOND, POOLED, len(tokenizers[1]), 422),
    ]
    for name, built in zip(("text_encoder", "text_encoder_2"), encoders):
        (folder / name).mkdir(exist_ok=True)
        save_model(built, folder / name)
    (folder / "prompts.json").write_text(json.dumps({"prompts": PROMPTS, "negatives": NEGATIVES}, indent=1) + "\n")
    with torch.no_grad():
        save_case(folder, sdxl(tokenizers, encoders) | sd1(tokenizers[0], encoders[0]))


if __name__ == "__main__":
    main()
