"""SD 1.x, SD 2.x and SDXL as the released models are built, only narrower; for family_*/make.py and interchange.

`MINIATURE` is small enough to be stored; `USUAL` keeps what every released file takes for granted and a single file
therefore does not say: 32 groups, heads of 64 (of SD 1.x 8 heads), 256 values per size, the whole vocabulary of CLIP.
"""

import json
import shutil
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from common import GOLDEN, LIMIT_BYTES, randomize, save_tensors, sort_metadata

diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

# Widths per level of the UNet, its heads, transformer blocks per level; width and heads of each text encoder.
MINIATURE = {
    "groups": 4,
    "vae": (4, 8, 8, 8),
    "size_width": 8,
    "sd1": {"unet": (8, 16, 24, 24), "heads": 8, "text": [(24, 4)]},
    "sd2": {"unet": (8, 16, 24, 24), "heads": (1, 2, 3, 3), "text": [(32, 4)]},
    "sdxl": {"unet": (8, 16, 24), "heads": (1, 2, 3), "depths": (1, 1, 2), "text": [(16, 2), (24, 3)]},
}
USUAL = {
    "groups": 32,
    "vae": (32, 32, 64, 64),
    "size_width": 256,
    "sd1": {"unet": (32, 64, 96, 96), "heads": 8, "text": [(128, 2)]},
    "sd2": {"unet": (64, 128, 192, 192), "heads": (1, 2, 3, 3), "text": [(128, 2)]},
    "sdxl": {"unet": (64, 128, 192), "heads": (1, 2, 3), "depths": (1, 2, 3), "text": [(64, 1), (128, 2)]},
}
FAMILIES = ("sd1", "sd2", "sdxl")
# `check_sizes` looks at what is to be stored; the usual widths are not.
UNLIMITED = 1 << 40
TEXT_LAYERS = 3
VAE_FACTOR = 8
SCALING_FACTOR = {"sd1": 0.18215, "sd2": 0.18215, "sdxl": 0.13025}
# scheduler_config.json as Stable Diffusion 1.5, 2.1 and XL ship it: what is absent is the class's default.
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
NOISE |= {"clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1}
SCHEDULERS = {
    "sd1": {"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "trained_betas": None} | NOISE,
    "sd2": {"_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", "trained_betas": None}
    | NOISE
    | {"prediction_type": "v_prediction"},
    "sdxl": {"_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0", "trained_betas": None}
    | NOISE
    | {"prediction_type": "epsilon", "timestep_spacing": "leading", "interpolation_type": "linear"}
    | {"sample_max_value": 1.0, "use_karras_sigmas": False},
}
# Fields of Stable Diffusion 1.5's configurations: the first releases left everything else to the defaults.
OLD_UNET = "_class_name act_fn attention_head_dim block_out_channels center_input_sample cross_attention_dim "
OLD_UNET += "down_block_types downsample_padding flip_sin_to_cos freq_shift in_channels layers_per_block "
OLD_UNET += "mid_block_scale_factor norm_eps norm_num_groups out_channels sample_size up_block_types"
OLD_VAE = "_class_name act_fn block_out_channels down_block_types in_channels latent_channels layers_per_block "
OLD_VAE += "norm_num_groups out_channels sample_size up_block_types"
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
PIPELINES = {
    "sd1": diffusers.StableDiffusionPipeline,
    "sd2": diffusers.StableDiffusionPipeline,
    "sdxl": diffusers.StableDiffusionXLPipeline,
}
FROM_PICTURES = {
    "sd1": diffusers.StableDiffusionImg2ImgPipeline,
    "sd2": diffusers.StableDiffusionImg2ImgPipeline,
    "sdxl": diffusers.StableDiffusionXLImg2ImgPipeline,
}
SAMPLERS = {
    "ddim": (diffusers.DDIMScheduler, {}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "dpmpp": (diffusers.DPMSolverMultistepScheduler, {}),
    "dpmpp-karras": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
}
NOISY_SAMPLERS = {
    "ddpm": (diffusers.DDPMScheduler, {}),
    "euler-a": (diffusers.EulerAncestralDiscreteScheduler, {}),
}
# Where diffusers draws noise of its own.
DRAWS = (
    "schedulers.scheduling_ddim",
    "schedulers.scheduling_ddpm",
    "schedulers.scheduling_euler_ancestral_discrete",
    "models.autoencoders.vae",
    "pipelines.stable_diffusion.pipeline_stable_diffusion_img2img",
    "pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img",
)


def unet_config(family, sizes):
    own = sizes[family]
    n_levels = len(own["unet"])
    plain = {0} if family == "sdxl" else {n_levels - 1}
    down = tuple("DownBlock2D" if level in plain else "CrossAttnDownBlock2D" for level in range(n_levels))
    up = tuple(name.replace("Down", "Up") for name in reversed(down))
    config = {
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 2,
        "block_out_channels": own["unet"],
        "down_block_types": down,
        "up_block_types": up,
        "cross_attention_dim": sum(width for width, _ in own["text"]),
        "attention_head_dim": own["heads"],
        "norm_num_groups": sizes["groups"],
    }
    if family != "sd1":
        config |= {"use_linear_projection": True}
    if family == "sd2":
        config |= {"upcast_attention": True}
    if family == "sdxl":
        pooled = own["text"][1][0]
        config |= {
            "transformer_layers_per_block": own["depths"],
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": sizes["size_width"],
            "projection_class_embeddings_input_dim": pooled + 6 * sizes["size_width"],
        }
    return config


def vae_config(family, sizes):
    n_levels = len(sizes["vae"])
    return {
        "down_block_types": ("DownEncoderBlock2D",) * n_levels,
        "up_block_types": ("UpDecoderBlock2D",) * n_levels,
        "block_out_channels": sizes["vae"],
        "layers_per_block": 2,
        "latent_channels": 4,
        "norm_num_groups": sizes["groups"],
        "sample_size": 128,
        "scaling_factor": SCALING_FACTOR[family],
    }


def text_config(family, sizes, index, tokenizer):
    width, heads = sizes[family]["text"][index]
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=heads,
        max_position_embeddings=77,
        hidden_act="quick_gelu" if family == "sd1" or (family, index) == ("sdxl", 0) else "gelu",
        # As in the released files, where they name other tokens than the tokenizer uses.
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )


def tokenizer_folders(family):
    """The miniature tokenizers: SD 2.x and SDXL's second encoder fill up with `!`."""
    filled = {"sd1": ["pad_end"], "sd2": ["pad_exclamation"], "sdxl": ["pad_end", "pad_exclamation"]}
    return [GOLDEN / "tokenizer" / name for name in filled[family]]


def build(family, sizes, seed, tokenizers):
    """A pipeline of random weights in f32, all of them numbers that f16 holds."""
    opened = [CLIPTokenizer.from_pretrained(str(folder)) for folder in tokenizers]
    parts = {
        "unet": UNet2DConditionModel(**unet_config(family, sizes)),
        "vae": AutoencoderKL(**vae_config(family, sizes)),
        "text_encoder": CLIPTextModel(text_config(family, sizes, 0, opened[0])),
    }
    if family == "sdxl":
        parts["text_encoder_2"] = CLIPTextModelWithProjection(text_config(family, sizes, 1, opened[1]))
    for number, (name, part) in enumerate(sorted(parts.items())):
        randomize(part, seed + number)
        if name == "unet" and SCHEDULERS[family].get("prediction_type") != "v_prediction":
            quieten(part)
        parts[name] = part.half().float().eval()
    class_name = SCHEDULERS[family]["_class_name"]
    scheduler = getattr(diffusers, class_name).from_config(SCHEDULERS[family])
    if family == "sdxl":
        both = {"tokenizer": opened[0], "tokenizer_2": opened[1]}
        return PIPELINES[family](
            scheduler=scheduler, force_zeros_for_empty_prompt=True, add_watermarker=False, **both, **parts
        )
    return PIPELINES[family](
        tokenizer=opened[0],
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **parts,
    )


def quieten(unet):
    """Random noise estimates of size one would add up to latents beside which the VAE's biases are nothing."""
    with torch.no_grad():
        for parameter in unet.conv_out.parameters():
            parameter.mul_(0.1)


def networks(pipeline):
    """The parts that have weights, by name."""
    names = ("unet", "vae", "text_encoder", "text_encoder_2")
    return {name: getattr(pipeline, name) for name in names if getattr(pipeline, name, None) is not None}


def save_base(family, pipeline, folder, tokenizers, shard="400KB"):
    """The folder in f16, each family with what sets the released one apart.

    SD 1.x: configurations without the later fields, a safety checker that is named and not there, the VAE's old
    names of attention, `text_model.` and `position_ids` in the text encoder. SD 2.x: the UNet in shards. SDXL: files
    of the variant `fp16`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for part in networks(pipeline).values():
        part.half()
    options = {"sd1": {}, "sd2": {"max_shard_size": shard}, "sdxl": {"variant": "fp16"}}
    pipeline.save_pretrained(folder, safe_serialization=True, **options[family])
    for part in networks(pipeline).values():
        part.float()
    for name, source in zip(("tokenizer", "tokenizer_2"), tokenizers):
        for file in ("vocab.json", "merges.txt", "special_tokens_map.json"):
            if (source / file).exists():
                shutil.copyfile(source / file, folder / name / file)
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULERS[family])
    if family == "sd1":
        make_old(folder)
    for file in folder.rglob("*.safetensors"):
        sort_metadata(file)
        file.chmod(0o644)


def check_sizes(folder):
    """Ends if a file is too large to be stored in the repository."""
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.stat().st_size >= LIMIT_BYTES:
            raise SystemExit(f"{file}: {file.stat().st_size} bytes, the limit is {LIMIT_BYTES}")


def make_old(folder):
    """Turns a folder of SD 1.x into what the first releases look like."""
    for part, fields in (("unet", OLD_UNET), ("vae", OLD_VAE)):
        path = folder / part / "config.json"
        config = json.loads(path.read_text())
        kept = {name: value for name, value in config.items() if name in fields.split()}
        write_json(path, kept | {"_diffusers_version": "0.6.0"})
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors, metadata = read(file)
    renamed = {}
    for name, tensor in tensors.items():
        for new, old in OLD_ATTENTION.items():
            name = name.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
        renamed[name] = tensor
    save_tensors(file, renamed, metadata, UNLIMITED)
    file = folder / "text_encoder" / "model.safetensors"
    tensors, metadata = read(file)
    tensors = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in tensors.items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_tensors(file, tensors, metadata, UNLIMITED)
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    del index["image_encoder"], index["requires_safety_checker"]
    write_json(folder / "model_index.json", index)


def read(file):
    with safe_open(str(file), "pt") as opened:
        metadata = opened.metadata()
    return load_file(str(file)), metadata


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def load(family, folder):
    """The pipeline of a folder in f32 on the CPU."""
    options = {"variant": "fp16"} if family == "sdxl" and list(Path(folder).rglob("*.fp16.safetensors")) else {}
    options |= options_of(family)
    if family != "sdxl":
        options |= {"safety_checker": None, "feature_extractor": None}
    pipeline = PIPELINES[family].from_pretrained(folder, dtype=torch.float32, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_single(family, path, folder):
    """The pipeline of a single file; configurations and tokenizers are those of `folder`."""
    options = {} if family == "sdxl" else {"safety_checker": None, "feature_extractor": None}
    pipeline = PIPELINES[family].from_single_file(
        str(path), config=str(folder), local_files_only=True, torch_dtype=torch.float32, **options
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def options_of(family):
    """What a pipeline is told beside its components: no watermark, no checker."""
    return {"add_watermarker": False} if family == "sdxl" else {"requires_safety_checker": False}


def from_pictures(family, pipeline):
    """The pipeline of the same networks that begins with a picture."""
    other = FROM_PICTURES[family](**pipeline.components, **options_of(family))
    other.set_progress_bar_config(disable=True)
    return other


def set_sampler(pipeline, folder, name, **changes):
    """The sampler `name` with the settings of the folder's scheduler, but for `changes`."""
    scheduler, extra = (SAMPLERS | NOISY_SAMPLERS)[name]
    settings = json.loads(Path(folder, "scheduler", "scheduler_config.json").read_text())
    named = getattr(diffusers, settings["_class_name"]).from_config(settings)
    # Through the class that the file names: only what the file says goes over to another class.
    pipeline.scheduler = scheduler.from_config(named.config, **extra, **changes)


def draw_picture(pipeline, latents, noises=(), **options):
    """The latents at the end and the picture; `options` go to the pipeline, `noises` replace its own draws."""
    common = {"guidance_scale": 3.0, "num_inference_steps": 8}
    if "image" not in options:
        sides = {"height": latents.shape[2] * VAE_FACTOR, "width": latents.shape[3] * VAE_FACTOR}
        common |= sides | {"latents": latents}
    drawn = {}
    with inner_text_model(pipeline.text_encoder):
        for kind in ("latent", "pil"):
            with given_noise(noises):
                drawn[kind] = pipeline(output_type=kind, **common | options).images[0]
    return drawn["latent"][None], drawn["pil"]


@contextmanager
def given_noise(noises):
    """Hands out `noises` one by one where diffusers would draw them; all have to be used."""
    left = list(noises)

    def randn_tensor(shape, **_):
        if not left or tuple(left[0].shape) != tuple(shape):
            raise SystemExit(f"diffusers asks for noise of shape {tuple(shape)} that was not foreseen")
        return left.pop(0).clone()

    with ExitStack() as stack:
        for module in DRAWS:
            stack.enter_context(patch(f"diffusers.{module}.randn_tensor", randn_tensor))
        yield
    if left:
        raise SystemExit(f"diffusers did not ask for {len(left)} of the noises")


@contextmanager
def inner_text_model(text_encoder):
    """diffusers looks for the final norm in `text_model` when it skips layers; transformers >= 5.6 has none such."""
    lacks = not hasattr(text_encoder, "text_model")
    if lacks:
        object.__setattr__(text_encoder, "text_model", text_encoder)
    yield
    if lacks:
        object.__delattr__(text_encoder, "text_model")
