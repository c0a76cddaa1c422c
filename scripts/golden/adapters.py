"""Adapters of whole pipelines: made by PEFT, saved by diffusers, and written once more under kohya's names."""

import json
import tempfile
from pathlib import Path

import torch
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file

from common import save_tensors
from families import UNLIMITED
from factors import factors, randomize_factors

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
UNET_LAYERS = ATTENTION + ["ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
UNET_LAYERS += ["conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv"]
TEXT_LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
# Ranks differ within a component and alphas between components: every reader of kohya's form gets that right.
RANK, CONV_RANK, ALPHA = 2, 1, 3.0
TEXT_RANK, TEXT_ALPHA = 2, 1.0
CONVOLUTIONS = ("conv1", "conv2", "downsamplers.0.conv", "upsamplers.0.conv")


def attach(pipeline, seed):
    """Puts a random adapter on the UNet and every text encoder; the parts that carry it."""
    ranks = dict.fromkeys(CONVOLUTIONS, CONV_RANK)
    unet = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=UNET_LAYERS, rank_pattern=ranks, lora_dropout=0.0, bias="none"
    )
    text = LoraConfig(r=TEXT_RANK, lora_alpha=TEXT_ALPHA, target_modules=TEXT_LAYERS, lora_dropout=0.0, bias="none")
    parts = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    if getattr(pipeline, "text_encoder_2", None) is not None:
        parts["text_encoder_2"] = pipeline.text_encoder_2
    for number, (name, part) in enumerate(parts.items()):
        part.add_adapter(unet if name == "unet" else text)
        randomize_factors(part, seed + number)
        with torch.no_grad():
            for _, _, parameter in factors(part):
                parameter.copy_(parameter.half().float())
    return parts


def save_with_diffusers(pipeline, parts, path, text_spelling=lambda state: state):
    """`save_lora_weights` in f16, with PEFT's configuration in the header."""
    named = {}
    for name, part in parts.items():
        state = {key: value.half() for key, value in get_peft_model_state_dict(part).items()}
        named[f"{name}_lora_layers"] = state if name == "unet" else text_spelling(state)
        # PEFT notes the folder the base came from: a path of the machine that made the file.
        named[f"{name}_lora_adapter_metadata"] = part.peft_config["default"].to_dict() | {"base_model_name_or_path": None}
    with tempfile.TemporaryDirectory() as scratch:
        type(pipeline).save_lora_weights(scratch, **named)
        file = str(Path(scratch, "pytorch_lora_weights.safetensors"))
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata()
        save_tensors(path, load_file(file), sorted_sets(metadata), UNLIMITED)


def training_script_spelling(state):
    """As diffusers' training scripts save text encoders: attention in the older spelling of diffusers."""
    return convert_state_dict_to_diffusers(state)


def sorted_sets(metadata):
    """PEFT writes its set of targets in a random order."""
    config = json.loads(metadata["lora_adapter_metadata"])
    config = {key: sorted(value) if key.endswith("target_modules") else value for key, value in config.items()}
    return metadata | {"lora_adapter_metadata": json.dumps(config, indent=2, sort_keys=True)}


def save_with_kohya_names(family, parts, path):
    """The same factors in f16 under the names that sd-scripts gives them."""
    tensors = {}
    for name, part in parts.items():
        for layer, letter, parameter in factors(part):
            stem = kohya_stem(family, name, layer, part)
            tensors[f"{stem}.lora_{'down' if letter == 'A' else 'up'}.weight"] = parameter.half()
            tensors[f"{stem}.alpha"] = torch.tensor(ALPHA if name == "unet" else TEXT_ALPHA, dtype=torch.float16)
    about = {"ss_network_module": "networks.lora", "ss_network_dim": str(RANK), "ss_network_alpha": str(ALPHA)}
    save_tensors(path, tensors, about, UNLIMITED)


def kohya_stem(family, name, layer, part):
    if name == "unet":
        path = sgm_path(layer, part) if family == "sdxl" else layer
        return "lora_unet_" + path.replace(".", "_")
    prefix = {"text_encoder": "te1" if family == "sdxl" else "te", "text_encoder_2": "te2"}[name]
    return f"lora_{prefix}_text_model_{layer.removeprefix('text_model.').replace('.', '_')}"


def sgm_path(layer, unet):
    """The place of a layer in the list of blocks that sgm's UNet is."""
    places = {}
    n_levels, layers = len(unet.down_blocks), unet.config.layers_per_block
    count = 1  # input_blocks.0 is conv_in
    for level in range(n_levels):
        for index in range(layers):
            places[f"down_blocks.{level}.resnets.{index}"] = f"input_blocks.{count}.0"
            places[f"down_blocks.{level}.attentions.{index}"] = f"input_blocks.{count}.1"
            count += 1
        if level + 1 < n_levels:
            places[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{count}.0.op"
            count += 1
    places |= {"mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1"}
    places |= {"mid_block.resnets.1": "middle_block.2"}
    count = 0
    for level, block in enumerate(unet.up_blocks):
        for index in range(layers + 1):
            places[f"up_blocks.{level}.resnets.{index}"] = f"output_blocks.{count}.0"
            places[f"up_blocks.{level}.attentions.{index}"] = f"output_blocks.{count}.1"
            count += 1
        after = 2 if hasattr(block, "attentions") else 1
        places[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{count - 1}.{after}.conv"
    resnet = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    }
    (place,) = [place for place in places if layer == place or layer.startswith(place + ".")]
    rest = layer.removeprefix(place).removeprefix(".")
    if ".resnets." in place:
        first, _, tail = rest.partition(".")
        rest = resnet[first] + (f".{tail}" if tail else "")
    return places[place] + (f".{rest}" if rest else "")
