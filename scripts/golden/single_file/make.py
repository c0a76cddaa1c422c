"""Single-file checkpoints of SD 1.x, SD 2.x and SDXL in the names of ldm and sgm, and their tensors under diffusers' names.

The files are made the other way round from how diffusers reads them: the names come from walking through the networks as
ldm's constructors build them, and diffusers' own converters say which diffusers name each one has. Every file is then
given to the same converters, which must find the networks in it again, bit for bit.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from diffusers import AutoencoderKL, UNet2DConditionModel  # noqa: E402
from diffusers.loaders.single_file_utils import (  # noqa: E402
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection  # noqa: E402

from common import case_folder, randomize, save_case, save_tensors  # noqa: E402

LAYERS = 2
UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
FIRST, SECOND = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
# Heads as the released models have them at such widths: 8 in SD 1.x, else one per 64 channels, here one.
UNETS = {
    "sd1": {"block_out_channels": (8, 16, 8, 8), "cross_attention_dim": 12, "attention_head_dim": 8},
    "sd2": {
        "block_out_channels": (4, 8, 12, 12),
        "cross_attention_dim": 8,
        "attention_head_dim": (1, 1, 1, 1),
        "use_linear_projection": True,
    },
    "sdxl": {
        "block_out_channels": (4, 8, 12),
        "cross_attention_dim": 12 + 16,
        "attention_head_dim": (1, 1, 1),
        "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2, 3),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 6,
        "projection_class_embeddings_input_dim": 20 + 6 * 6,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    },
}
VAE_CONFIG = {
    "block_out_channels": (4, 8, 8, 12),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": LAYERS,
    "norm_num_groups": 4,
}
ATTENTION = [f"attn{n}.to_{part}" for n in (1, 2) for part in ("q", "k", "v", "out.0")]


def text(width, layers, projection=None):
    config = CLIPTextConfig(
        vocab_size=40,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=1,
        max_position_embeddings=9,
        hidden_act="gelu" if projection or layers > 12 else "quick_gelu",
        projection_dim=projection or width,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def state(model, seed, before=""):
    """Random weights in f16 under their diffusers names, `before` in front of them."""
    randomize(model, seed)
    return {before + name: value.half() for name, value in model.state_dict().items() if value.is_floating_point()}


def with_parameters(paths):
    return [f"{path}.{leaf}" for path in paths for leaf in ("weight", "bias")]


def unet_names(config):
    """What ldm's UNetModel holds, as its constructor adds it; more names than there are do no harm."""
    n_levels = len(config["block_out_channels"])
    depths = config.get("transformer_layers_per_block", (1,) * n_levels)
    down_types = config.get("down_block_types", ("CrossAttnDownBlock2D",) * (n_levels - 1) + ("DownBlock2D",))
    attends = [kind.startswith("Cross") for kind in down_types]
    paths = ["time_embed.0", "time_embed.2", "label_emb.0.0", "label_emb.0.2", "input_blocks.0.0", "out.0", "out.2"]

    def resnet(path):
        inner = ("in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3", "skip_connection")
        paths.extend(f"{path}.{layer}" for layer in inner)

    def transformer(path, depth):
        paths.extend(f"{path}.{layer}" for layer in ("norm", "proj_in", "proj_out"))
        inner = ["norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2", *ATTENTION]
        paths.extend(f"{path}.transformer_blocks.{d}.{layer}" for d in range(depth) for layer in inner)

    number = 1
    for level in range(n_levels):
        for _ in range(LAYERS):
            resnet(f"input_blocks.{number}.0")
            if attends[level]:
                transformer(f"input_blocks.{number}.1", depths[level])
            number += 1
        if level < n_levels - 1:
            paths.append(f"input_blocks.{number}.0.op")
            number += 1
    resnet("middle_block.0")
    transformer("middle_block.1", depths[-1])
    resnet("middle_block.2")
    number = 0
    for level in reversed(range(n_levels)):
        for i in range(LAYERS + 1):
            modules = [f"output_blocks.{number}.0"]
            resnet(modules[0])
            if attends[level]:
                modules.append(f"output_blocks.{number}.1")
                transformer(modules[-1], depths[level])
            if level > 0 and i == LAYERS:
                paths.append(f"output_blocks.{number}.{len(modules)}.conv")
            number += 1
    return with_parameters(paths)


def vae_names():
    """What ldm's AutoencoderKL holds, as its constructors add it; more names than there are do no harm."""
    n_levels = len(VAE_CONFIG["block_out_channels"])
    paths = ["quant_conv", "post_quant_conv"]
    for side, way, sample, n_blocks in (
        ("encoder", "down", "downsample", LAYERS),
        ("decoder", "up", "upsample", LAYERS + 1),
    ):
        paths += [f"{side}.{layer}" for layer in ("conv_in", "norm_out", "conv_out")]
        blocks = [f"{side}.mid.block_1", f"{side}.mid.block_2"]
        blocks += [f"{side}.{way}.{level}.block.{i}" for level in range(n_levels) for i in range(n_blocks)]
        layers = ("norm1", "conv1", "norm2", "conv2", "nin_shortcut")
        paths += [f"{block}.{layer}" for block in blocks for layer in layers]
        paths += [f"{side}.mid.attn_1.{layer}" for layer in ("norm", "q", "k", "v", "proj_out")]
        # The lowest level of the encoder and the highest of the decoder do not change the size.
        levels = range(n_levels - 1) if side == "encoder" else range(1, n_levels)
        paths += [f"{side}.{way}.{level}.{sample}.conv" for level in levels]
    return with_parameters(paths)


def ldm_of(expected, names, prefix, convert):
    """The ldm name of each expected tensor, found by sending numbered tensors through a converter."""
    numbered = {prefix + name: torch.full((1, 1, 1, 1), float(n)) for n, name in enumerate(names)}
    found = {name: prefix + names[int(value.item())] for name, value in convert(numbered).items()}
    missing = sorted(set(expected) - set(found))
    if missing:
        raise SystemExit(f"no ldm name for {missing}")
    return {found[name]: value for name, value in expected.items()}


def open_clip_of(expected, prefix):
    """OpenCLIP's names for a text encoder of transformers; q, k and v are one tensor, the projection is transposed."""
    renamed = [("text_model.", ""), ("encoder.layers.", "transformer.resblocks."), ("layer_norm1", "ln_1")]
    renamed += [("layer_norm2", "ln_2"), ("self_attn", "attn"), ("fc1", "c_fc"), ("fc2", "c_proj")]
    renamed += [("final_layer_norm", "ln_final"), ("embeddings.token_embedding", "token_embedding")]
    renamed += [("embeddings.position_embedding.weight", "positional_embedding")]
    ldm = {}
    for name, value in expected.items():
        for current, old in renamed:
            name = name.replace(current, old)
        if name == "text_projection.weight":
            ldm[prefix + "text_projection"] = value.T.contiguous()
        elif ".q_proj." in name:
            parts = [expected_part(expected, name, part) for part in "qkv"]
            ldm[prefix + name.replace("q_proj.", "in_proj_")] = torch.cat(parts)
        elif ".k_proj." not in name and ".v_proj." not in name:
            ldm[prefix + name] = value
    return ldm


def expected_part(expected, name, part):
    block, kind = name.removeprefix("transformer.resblocks.").split(".attn.q_proj.")
    return expected[f"text_model.encoder.layers.{block}.self_attn.{part}_proj.{kind}"]


def same(found, expected, what):
    if found.keys() != expected.keys():
        raise SystemExit(f"{what}: {sorted(found.keys() ^ expected.keys())}")
    for name, value in expected.items():
        if found[name].shape != value.shape or not torch.equal(found[name], value):
            raise SystemExit(f"{what}: {name} differs")


def add_unet(family, ldm, parts, seed):
    config = UNETS[family] | {"norm_num_groups": 4, "layers_per_block": LAYERS}
    model = UNet2DConditionModel(**config)
    parts["unet"] = state(model, seed)

    def convert(checkpoint):
        return convert_ldm_unet_checkpoint(checkpoint, model.config)

    ldm |= ldm_of(parts["unet"], unet_names(config), UNET, convert)
    same(convert(ldm), parts["unet"], f"{family} unet")
    return model


def add_vae(ldm, parts, seed):
    model = AutoencoderKL(**VAE_CONFIG)
    parts["vae"] = state(model, seed)

    def convert(checkpoint):
        return convert_ldm_vae_checkpoint(checkpoint, model.config)

    tensors = ldm_of(parts["vae"], vae_names(), VAE, convert)
    for name, value in tensors.items():
        if ".attn_1." in name and value.dim() == 2:
            tensors[name] = value[:, :, None, None].contiguous()
    ldm |= tensors
    same(convert(ldm), parts["vae"], "vae")
    return model


def add_average(model, ldm, parts, seed):
    """The moving average beside the network, under the names that diffusers looks for."""
    parts["average"] = state(model, seed)
    names = {value.data_ptr(): name for name, value in parts["unet"].items()}
    for name, value in list(ldm.items()):
        if name.startswith(UNET):
            ldm["model_ema." + "".join(name.split(".")[1:])] = parts["average"][names[value.data_ptr()]]
    found = convert_ldm_unet_checkpoint(ldm, model.config, extract_ema=True)
    same(found, parts["average"], "average")


def bare(tensors):
    return {name.removeprefix("text_model."): value for name, value in tensors.items()}


def add_text(family, ldm, parts):
    ids = torch.arange(9)[None]
    if family == "sd2":
        # The last of 24 layers is trained and stored, and never used.
        whole = text(8, 24)
        tensors = state(whole, 621, "text_model.")
        ldm |= open_clip_of(tensors, OPEN_CLIP)
        ldm[OPEN_CLIP + "text_projection"] = torch.eye(8).half()
        ldm[OPEN_CLIP + "logit_scale"] = torch.tensor(4.6)
        parts["text_encoder"] = {name: value for name, value in tensors.items() if ".layers.23." not in name}
        used = text(8, 23)
        same(bare(convert_open_clip_checkpoint(used, ldm, OPEN_CLIP)), bare(parts["text_encoder"]), "sd2 text")
        return {"text_encoder": used}
    model = text(12, 3)
    prefix = CLIP if family == "sd1" else FIRST
    parts["text_encoder"] = state(model, 611, "text_model.")
    ldm |= {prefix + name: value for name, value in parts["text_encoder"].items()}
    same(convert_ldm_clip_checkpoint(ldm), parts["text_encoder"], f"{family} text")
    ldm[prefix + "text_model.embeddings.position_ids"] = ids
    models = {"text_encoder": model}
    if family == "sdxl":
        models["text_encoder_2"] = second = text(16, 4, projection=20)
        parts["text_encoder_2"] = state(second, 631)
        ldm |= open_clip_of(parts["text_encoder_2"], SECOND)
        ldm[SECOND + "logit_scale"] = torch.tensor(4.6)
        # diffusers splits at the width of the projection, which is that of the encoder in the released model only.
        found = convert_open_clip_checkpoint(second, square(ldm), SECOND)
        found["text_projection.weight"] = ldm[SECOND + "text_projection"].T
        same(found, parts["text_encoder_2"], "sdxl second text")
    return models


def square(ldm):
    return ldm | {SECOND + "text_projection": torch.eye(16).half()}


def config_of(model):
    return model if hasattr(model, "to_json_string") else model.config


def make(folder, family, seed):
    ldm, parts = {}, {}
    unet = add_unet(family, ldm, parts, seed)
    models = {"unet": unet, "vae": add_vae(ldm, parts, seed + 1)} | add_text(family, ldm, parts)
    if family == "sd1":
        add_average(unet, ldm, parts, seed + 2)
        ldm["model_ema.decay"] = torch.tensor(0.9999)
        ldm["model_ema.num_updates"] = torch.tensor(7, dtype=torch.int32)
    if family == "sdxl":
        ldm["denoiser.sigmas"] = torch.linspace(0.03, 14.6, 10)
    else:
        ldm |= {"betas": torch.full((10,), 0.1), "alphas_cumprod": torch.full((10,), 0.5)}
    save_tensors(folder / f"{family}.safetensors", ldm)
    expected = {f"{part}/{name}": value for part, tensors in parts.items() for name, value in tensors.items()}
    average = {name: expected.pop(name) for name in list(expected) if name.startswith("average/")}
    if average:
        save_tensors(folder / f"{family}.average.safetensors", average)
    save_tensors(folder / f"{family}.expected.safetensors", expected)
    configs = {part: json.loads(config_of(model).to_json_string()) for part, model in models.items()}
    (folder / f"{family}.configs.json").write_text(json.dumps(configs, indent=1, sort_keys=True) + "\n")
    return {f"{family}.{part}": torch.tensor(len(tensors)) for part, tensors in parts.items()}


def main():
    folder = case_folder(__file__)
    counts = {}
    for number, family in enumerate(UNETS):
        counts |= make(folder, family, 601 + 1000 * number)
    save_case(folder, counts)


if __name__ == "__main__":
    main()
