"""What the UNet cases share: one forward pass of a miniature UNet with its intermediate results."""

import torch

from common import Tap, draw, randomize, save_case, save_model


def tapped_paths(unet):
    paths = ["conv_in", "time_embedding"]
    paths += [f"down_blocks.{i}" for i in range(len(unet.down_blocks))]
    paths += ["mid_block"]
    paths += [f"up_blocks.{i}" for i in range(len(unet.up_blocks))]
    paths += ["conv_norm_out"]
    return paths


def make(folder, config, seed, height, width, tokens, timesteps, pooled_dim=None):
    """Writes config, weights and one case: batch 2, not square, odd timesteps."""
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(**config).eval()
    randomize(unet, seed)
    inputs = {
        "sample": draw((2, config["in_channels"], height, width), seed + 1),
        "timesteps": torch.tensor(timesteps, dtype=torch.int64),
        "encoder_hidden_states": draw((2, tokens, config["cross_attention_dim"]), seed + 2),
    }
    added = None
    if pooled_dim is not None:
        inputs["text_embeds"] = draw((2, pooled_dim), seed + 3)
        inputs["time_ids"] = torch.tensor(
            [[512.0, 768.0, 0.0, 16.0, 512.0, 640.0], [1024.0, 1024.0, 8.0, 0.0, 1000.0, 1024.0]]
        )
        added = {"text_embeds": inputs["text_embeds"], "time_ids": inputs["time_ids"]}
    tap = Tap(unet, tapped_paths(unet) + (["add_embedding"] if added else []))
    with torch.no_grad():
        output = unet(
            inputs["sample"],
            inputs["timesteps"],
            encoder_hidden_states=inputs["encoder_hidden_states"],
            added_cond_kwargs=added,
        ).sample
    save_model(unet, folder)
    save_case(folder, inputs | {"output": output} | tap.close())
    print(f"  {folder.name}: {sum(p.numel() for p in unet.parameters())} parameters")
    return unet


def load(folder):
    """The UNet and the inputs of a case made before."""
    from diffusers import UNet2DConditionModel
    from safetensors.torch import load_file

    config = UNet2DConditionModel.load_config(str(folder / "config.json"))
    unet = UNet2DConditionModel.from_config(config).eval()
    unet.load_state_dict(load_file(str(folder / "weights.safetensors")), strict=True)
    case = load_file(str(folder / "case.safetensors"))
    inputs = {name: case[name] for name in ("sample", "timesteps", "encoder_hidden_states")}
    return unet, inputs


def forward(unet, inputs):
    """One forward pass with the inputs of a case."""
    return unet(
        inputs["sample"],
        inputs["timesteps"],
        encoder_hidden_states=inputs["encoder_hidden_states"],
    ).sample
