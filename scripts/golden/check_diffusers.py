"""Loads a base folder with diffusers and draws from it, as a check from outside.

    python check_diffusers.py [FOLDER] --prompt "a red boat at night" --out picture.png
        [--negative TEXT] [--steps 20] [--guidance 5] [--sampler ddim] [--seed 0] [--size WxH]
        [--latents FILE.safetensors] [--adapter FILE[:dose]]... [--save-latents FILE.safetensors]

FILE given to --latents holds [1, C, h, w] under the key "latents": unit normal, before any
scaling by the sampler, as for `populate generate --init-latents`. --save-latents writes the
latents that were used in that form. An adapter with a key that the base has no place for,
or that diffusers ignores, ends the program with code 1. The last line printed is JSON.
"""

import argparse
import json
import sys
from pathlib import Path

import diffusers
import numpy
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

SAMPLERS = {
    "ddim": (diffusers.DDIMScheduler, {}),
    "ddpm": (diffusers.DDPMScheduler, {}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler-a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "dpmpp": (diffusers.DPMSolverMultistepScheduler, {}),
    "dpmpp-karras": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
}
ADAPTER_KEYS = (".lora_down.weight", ".lora_up.weight", ".alpha", ".lora_A.weight", ".lora_B.weight")


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", default="checkpoints/postcards")
    parser.add_argument("--prompt", default="a red boat at night")
    parser.add_argument("--negative", default="")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--sampler", choices=sorted(SAMPLERS), default="ddim")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", help="WxH in pixels; without it, the base's own side")
    parser.add_argument("--latents", help="safetensors file with the key latents")
    parser.add_argument("--save-latents", help="writes the initial latents that were used")
    parser.add_argument("--adapter", action="append", default=[], help="FILE or FILE:dose; may be repeated")
    parser.add_argument("--out", default="diffusers.png")
    return parser.parse_args()


def fail(text):
    print(f"error: {text}", file=sys.stderr)
    sys.exit(1)


def open_base(folder):
    """The pipeline in f32 on the CPU, and the account of loading its weights.

    from_pretrained forgives missing and unexpected tensors, so the file and the model are
    compared here, by name and shape.
    """
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, feature_extractor=None, requires_safety_checker=False, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    counts = {}
    stems = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
    for part, stem in stems.items():
        files = sorted(Path(folder, part).glob(f"{stem}*.safetensors"))
        if not files:
            fail(f"{folder}/{part} holds no {stem}.safetensors")
        shapes = {}
        with safe_open(str(files[0]), "pt") as file:
            for name in file.keys():
                shapes[name.removeprefix("text_model.")] = tuple(file.get_slice(name).get_shape())
        state = getattr(pipeline, part).state_dict()
        wanted = {name.removeprefix("text_model."): tuple(value.shape) for name, value in state.items()}
        shapes.pop("embeddings.position_ids", None)
        problems = [f"missing {name}" for name in wanted if name not in shapes]
        problems += [f"unexpected {name}" for name in shapes if name not in wanted]
        problems += [f"{n}: {shapes[n]} for {wanted[n]}" for n in wanted if n in shapes and shapes[n] != wanted[n]]
        if problems:
            fail(f"{files[0]}: " + "; ".join(sorted(problems)[:20]) + f" ({len(problems)} in all)")
        counts[part] = sum(value.numel() for value in state.values())
    return pipeline, counts


def placed_modules(pipeline, name):
    """The modules that carry the adapter `name` in the loaded models."""
    found = set()
    for part in ("unet", "text_encoder"):
        for path, module in getattr(pipeline, part).named_modules():
            if name in (getattr(module, "lora_A", None) or {}):
                found.add(f"{part}.{path}")
    return found


class Collect(diffusers.utils.logging.logging.Handler):
    """Keeps the warnings that diffusers would only print."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def attach(pipeline, argument, index):
    """Loads one adapter and accounts for every module that its file names."""
    path, _, dose = argument.rpartition(":") if ":" in argument else (argument, "", "1")
    path, dose = Path(path), float(dose)
    with safe_open(str(path), "pt") as file:
        keys = list(file.keys())
    stems = set()
    for key in keys:
        suffix = next((suffix for suffix in ADAPTER_KEYS if key.endswith(suffix)), None)
        if suffix is None:
            fail(f"{path}: unexpected key {key}")
        stems.add(key.removesuffix(suffix))
    collected = Collect()
    logger = diffusers.utils.logging.get_logger("diffusers")
    logger.addHandler(collected)
    name = f"adapter_{index}"
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name)
    logger.removeHandler(collected)
    placed = placed_modules(pipeline, name)
    # Dots and underscores are told apart only by the model: compare both sides without them.
    squeezed = {stem.removeprefix("base_model.model.").replace(".", "_") for stem in stems}
    for prefix, part in (("lora_unet_", "unet_"), ("lora_te1_", "text_encoder_"), ("lora_te_", "text_encoder_")):
        squeezed = {part + stem.removeprefix(prefix) if stem.startswith(prefix) else stem for stem in squeezed}
    squeezed = {stem.replace("text_encoder_text_model_", "text_encoder_") for stem in squeezed}
    have = {module.replace(".", "_").replace("text_encoder_text_model_", "text_encoder_") for module in placed}
    lost = sorted(squeezed - have)
    if lost:
        fail(f"{path}: diffusers placed {len(placed)} of {len(stems)} modules; lost: " + ", ".join(lost[:10]))
    complaints = [line for line in collected.lines if "key" in line.lower() or "unexpected" in line.lower()]
    # diffusers remarks on each component that an adapter does not touch; the account above settles those.
    complaints = [line for line in complaints if not line.startswith("No LoRA keys associated to")]
    if complaints:
        fail(f"{path}: " + " | ".join(complaints))
    return {"file": str(path), "dose": dose, "modules": len(placed), "name": name}


def initial_latents(pipeline, arguments):
    """Unit-normal latents [1, C, h, w] from the file, or drawn from the seed."""
    channels = pipeline.unet.config.in_channels
    if arguments.latents:
        tensors = load_file(arguments.latents)
        if "latents" not in tensors:
            fail(f"{arguments.latents}: no key latents, only {sorted(tensors)}")
        latents = tensors["latents"].float()
        latents = latents[None] if latents.dim() == 3 else latents
        if latents.dim() != 4 or latents.shape[0] != 1 or latents.shape[1] != channels:
            fail(f"{arguments.latents}: latents are {list(latents.shape)}, wanted [1, {channels}, h, w]")
        return latents
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    width, height = (int(n) for n in arguments.size.split("x")) if arguments.size else (side, side)
    shape = (1, channels, height // pipeline.vae_scale_factor, width // pipeline.vae_scale_factor)
    return torch.randn(shape, generator=torch.Generator().manual_seed(arguments.seed))


def main():
    arguments = parse()
    torch.use_deterministic_algorithms(True)
    pipeline, parameters = open_base(arguments.folder)
    scheduler, extra = SAMPLERS[arguments.sampler]
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **extra)
    adapters = [attach(pipeline, argument, index) for index, argument in enumerate(arguments.adapter)]
    if adapters:
        pipeline.set_adapters([a["name"] for a in adapters], [a["dose"] for a in adapters])
    latents = initial_latents(pipeline, arguments)
    if arguments.save_latents:
        save_file({"latents": latents.contiguous()}, arguments.save_latents)
    factor = pipeline.vae_scale_factor
    picture = pipeline(
        arguments.prompt,
        negative_prompt=arguments.negative,
        num_inference_steps=arguments.steps,
        guidance_scale=arguments.guidance,
        height=latents.shape[2] * factor,
        width=latents.shape[3] * factor,
        latents=latents.clone(),
        generator=torch.Generator().manual_seed(arguments.seed),
    ).images[0]
    picture.save(arguments.out)
    values = numpy.asarray(picture, dtype=numpy.float64)
    print(
        json.dumps(
            {
                "out": arguments.out,
                "size": list(picture.size),
                "sampler": arguments.sampler,
                "timesteps": [float(t) for t in pipeline.scheduler.timesteps],
                "parameters": parameters,
                "adapters": adapters,
                "mean": round(values.mean(), 4),
                "standard_deviation": round(values.std(), 4),
                "diffusers": diffusers.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
