"""A whole miniature base folder (f16) and the pictures that diffusers draws from it, with and without an adapter."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import shutil  # noqa: E402

import diffusers  # noqa: E402
import torch  # noqa: E402
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer  # noqa: E402

from common import GOLDEN, case_folder, draw, randomize, save_case, save_tensors, sort_metadata  # noqa: E402

WIDTH = 24
UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (4, 8, 8),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 32,
    "scaling_factor": 0.8,
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
PROMPT, NEGATIVE = "a red lighthouse at night, ink hatching", "a mosaic"
STEPS, GUIDANCE = 8, 3.0
SAMPLERS = {
    "ddim": (diffusers.DDIMScheduler, {}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "dpmpp": (diffusers.DPMSolverMultistepScheduler, {}),
    "dpmpp-karras": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
}
RANK, ALPHA = 2, 4.0
UNET_LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
TEXT_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def build():
    tokenizer = CLIPTokenizer.from_pretrained(str(GOLDEN / "tokenizer" / "pad_end"))
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act="quick_gelu",
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )
    parts = {
        "unet": UNet2DConditionModel(**UNET),
        "vae": AutoencoderKL(**VAE),
        "text_encoder": CLIPTextModel(text),
    }
    for number, (name, part) in enumerate(sorted(parts.items())):
        randomize(part, 801 + number)
        # Values as f16 holds them, so that the f16 files and this model are the same numbers.
        parts[name] = part.half().float().eval()
    return StableDiffusionPipeline(
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **parts,
    )


def save_base(pipeline, folder):
    """The folder as save_pretrained writes it, plus the old tokenizer files, weights in f16."""
    shutil.rmtree(folder, ignore_errors=True)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.half()
    pipeline.save_pretrained(folder, safe_serialization=True)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.float()
    for file in ("vocab.json", "merges.txt", "special_tokens_map.json"):
        shutil.copyfile(GOLDEN / "tokenizer" / "pad_end" / file, folder / "tokenizer" / file)
    for file in folder.rglob("*.safetensors"):
        sort_metadata(file)
        file.chmod(0o644)


def kohya_adapter(pipeline, seed):
    """An adapter for UNet and text encoder under kohya names."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for prefix, model, layers in (
        ("lora_unet_", pipeline.unet, UNET_LAYERS),
        ("lora_te_text_model_", pipeline.text_encoder, TEXT_LAYERS),
    ):
        for path, module in sorted(model.named_modules()):
            if not any(path.endswith("." + layer) for layer in layers):
                continue
            stem = prefix + path.replace(".", "_")
            tail = tuple(module.weight.shape[2:])
            n_out, n_in = module.weight.shape[:2]
            tensors[f"{stem}.lora_down.weight"] = torch.randn((RANK, n_in, *tail), generator=generator) / n_in**0.5
            tensors[f"{stem}.lora_up.weight"] = torch.randn((n_out, RANK, *tail), generator=generator) * 0.15
            tensors[f"{stem}.alpha"] = torch.tensor(ALPHA)
    return tensors


def sample(pipeline, name, latents, folder, tag):
    scheduler, extra = SAMPLERS[name]
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **extra)
    result = {}
    for kind in ("latent", "pt", "pil"):
        output = pipeline(
            PROMPT,
            negative_prompt=NEGATIVE,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            height=latents.shape[2] * pipeline.vae_scale_factor,
            width=latents.shape[3] * pipeline.vae_scale_factor,
            latents=latents.clone(),
            output_type=kind,
        ).images
        if kind == "pil":
            output[0].save(folder / f"{tag}.png")
        else:
            result[f"{'latents' if kind == 'latent' else 'pixels'}.{tag}"] = output
    return result


def main():
    folder = case_folder(__file__)
    pipeline = build()
    save_base(pipeline, folder / "base")
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder / "base", safety_checker=None, requires_safety_checker=False, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    latents = draw((1, 4, 8, 12), 811)
    save_tensors(folder / "latents.safetensors", {"latents": latents})
    ids = pipeline.tokenizer([PROMPT, NEGATIVE], padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        states = pipeline.text_encoder(ids).last_hidden_state
    tensors = {"latents": latents, "input_ids": ids, "text_states": states}
    for name in SAMPLERS:
        tensors |= sample(pipeline, name, latents, folder, name)
    save_tensors(
        folder / "adapter.safetensors",
        kohya_adapter(pipeline, 821),
        {"ss_network_module": "networks.lora", "ss_network_dim": str(RANK), "ss_network_alpha": str(ALPHA)},
    )
    pipeline.load_lora_weights(str(folder), weight_name="adapter.safetensors", adapter_name="adapter")
    tensors |= sample(pipeline, "ddim", latents, folder, "ddim-adapter")
    pipeline.set_adapters(["adapter"], [0.5])
    tensors |= sample(pipeline, "ddim", latents, folder, "ddim-adapter-half")
    save_case(folder, tensors)
    shares = {n: ((v <= 0) | (v >= 1)).float().mean().item() for n, v in tensors.items() if n.startswith("pixels.")}
    print("  share of clipped values:", {name: round(share, 3) for name, share in shares.items()})


if __name__ == "__main__":
    main()
