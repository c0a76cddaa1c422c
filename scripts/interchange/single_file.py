"""Writes a pipeline as one file under the names of ldm (SD 1.x, SD 2.x) and sgm (SDXL)."""

import torch
from safetensors.torch import save_file

from adapters import sgm_path

OUTER = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def split(name):
    """Layer and parameter."""
    layer, _, leaf = name.rpartition(".")
    return layer, leaf


def unet(network):
    for name, value in network.state_dict().items():
        layer, leaf = split(name)
        place = OUTER.get(layer) or sgm_path(layer, network)
        yield f"model.diffusion_model.{place}.{leaf}", value


def vae(network):
    n_levels = len(network.config.block_out_channels)
    for name, value in network.state_dict().items():
        layer, leaf = split(name)
        side, _, inner = layer.partition(".")
        if inner:
            place, is_attention = vae_place(side, inner, n_levels)
            if is_attention and value.dim() == 2:
                value = value[:, :, None, None]
            layer = f"{side}.{place}"
        yield f"first_stage_model.{layer}.{leaf}", value


def vae_place(side, inner, n_levels):
    """The place of a layer of encoder or decoder, and whether it is a linear layer that was a convolution there."""
    parts = inner.split(".")
    if parts[0] == "conv_norm_out":
        return "norm_out", False
    if parts[0] in ("conv_in", "conv_out"):
        return inner, False
    if parts[0] == "mid_block":
        if parts[1] == "attentions":
            return f"mid.attn_1.{VAE_ATTENTION['.'.join(parts[3:])]}", parts[3] != "group_norm"
        return f"mid.block_{int(parts[2]) + 1}.{parts[3]}", False
    level = int(parts[1])
    if parts[0] == "up_blocks":
        level = n_levels - 1 - level
    way = {"down_blocks": "down", "up_blocks": "up"}[parts[0]]
    if parts[2] == "resnets":
        layer = {"conv_shortcut": "nin_shortcut"}.get(parts[4], parts[4])
        return f"{way}.{level}.block.{parts[3]}.{layer}", False
    return f"{way}.{level}.{'downsample' if parts[2] == 'downsamplers' else 'upsample'}.conv", False


def clip(network, prefix):
    """Names of transformers, as the files have them."""
    for name, value in network.state_dict().items():
        yield f"{prefix}text_model.{name.removeprefix('text_model.')}", value
    yield f"{prefix}text_model.embeddings.position_ids", torch.arange(77)[None]


def open_clip(network, prefix, more_blocks):
    """Names of OpenCLIP; `more_blocks` follow the last one, random, as SD 2.x has one that nothing reads."""
    state = {name.removeprefix("text_model."): value for name, value in network.state_dict().items()}
    outer = {
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm.weight": "ln_final.weight",
        "final_layer_norm.bias": "ln_final.bias",
    }
    found = {new: state[old] for old, new in outer.items()}
    width = network.config.hidden_size
    if "text_projection.weight" in state:
        found["text_projection"] = state["text_projection.weight"].T
    else:
        found["text_projection"] = torch.randn(width, width).half().float()
    n_layers = network.config.num_hidden_layers
    for number in range(n_layers + more_blocks):
        source = f"encoder.layers.{min(number, n_layers - 1)}"
        # A block too many holds other values, so that reading it is seen.
        sign = 1 if number < n_layers else -1
        block = f"transformer.resblocks.{number}"
        for leaf in ("weight", "bias"):
            for old, new in OPEN_CLIP.items():
                found[f"{block}.{new}.{leaf}"] = sign * state[f"{source}.{old}.{leaf}"]
            rows = [state[f"{source}.self_attn.{part}_proj.{leaf}"] for part in "qkv"]
            found[f"{block}.attn.in_proj_{leaf}"] = sign * torch.cat(rows)
    found["logit_scale"] = torch.tensor(4.6)
    for name, value in found.items():
        yield prefix + name, value


def write(family, pipeline, path):
    """One file in f16."""
    tensors = dict(unet(pipeline.unet)) | dict(vae(pipeline.vae))
    if family == "sd1":
        tensors |= dict(clip(pipeline.text_encoder, "cond_stage_model.transformer."))
    elif family == "sd2":
        tensors |= dict(open_clip(pipeline.text_encoder, "cond_stage_model.model.", 1))
    else:
        tensors |= dict(clip(pipeline.text_encoder, "conditioner.embedders.0.transformer."))
        tensors |= dict(open_clip(pipeline.text_encoder_2, "conditioner.embedders.1.model.", 0))
    tensors |= {"alphas_cumprod": torch.linspace(1, 0, 1000), "betas": torch.linspace(0, 1, 1000)}
    half = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    save_file({name: value.contiguous() for name, value in half.items()}, str(path), metadata={"format": "pt"})
