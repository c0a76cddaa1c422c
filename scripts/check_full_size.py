"""The half of check_full_size.sh that diffusers and PEFT do: a random SD 1.5 UNet, one LoRA, one backward pass.

    python check_full_size.py FOLDER [--side 64]

Writes FOLDER/model_index.json and FOLDER/unet (f16), FOLDER/adapter.safetensors (kohya's names, f32) and
FOLDER/case.safetensors: inputs, loss, and the gradients of both factors of three layers. --side is that of the
latents: 64 for pictures of 512 px.
"""

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "golden"))
sys.dont_write_bytecode = True

import torch  # noqa: E402
from diffusers import UNet2DConditionModel  # noqa: E402
from peft import LoraConfig  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from common import draw  # noqa: E402
from factors import factors, randomize_factors  # noqa: E402

# unet/config.json of Stable Diffusion 1.5; what is not said is diffusers' default.
CONFIG = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
N_PARAMETERS = 859_520_964
RANK, ALPHA = 4, 4.0
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
CHOSEN = [
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
    "up_blocks.3.attentions.2.transformer_blocks.0.attn1.to_v",
]


def make_unet(folder):
    """Random weights, saved in f16 and rounded to what f16 holds."""
    torch.manual_seed(2024)
    unet = UNet2DConditionModel(**CONFIG).eval().requires_grad_(False)
    count = sum(parameter.numel() for parameter in unet.parameters())
    if count != N_PARAMETERS:
        raise SystemExit(f"the UNet has {count} parameters, expected {N_PARAMETERS}")
    unet.half().save_pretrained(folder / "unet", max_shard_size="10GB")
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index) + "\n")
    return unet.float()


def attach(unet, folder):
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, lora_dropout=0.0))
    randomize_factors(unet, 2025)
    tensors = {}
    for path, letter, parameter in factors(unet):
        stem = "lora_unet_" + path.replace(".", "_")
        tensors[f"{stem}.lora_{'down' if letter == 'A' else 'up'}.weight"] = parameter.detach().contiguous()
        tensors[f"{stem}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, str(folder / "adapter.safetensors"), metadata={"ss_network_module": "networks.lora"})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=64)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(os.cpu_count() or 1)
    start = time.monotonic()
    unet = make_unet(arguments.folder)
    attach(unet, arguments.folder)
    print(f"diffusers: UNet and adapter written after {time.monotonic() - start:.0f} s")
    side = arguments.side
    case = {
        "sample": draw((1, 4, side, side), 2026),
        "timesteps": torch.tensor([501]),
        "encoder_hidden_states": draw((1, 77, 768), 2027),
        "target": draw((1, 4, side, side), 2028),
    }
    start = time.monotonic()
    unet.train()
    context = case["encoder_hidden_states"]
    output = unet(case["sample"], case["timesteps"], encoder_hidden_states=context).sample
    loss = torch.nn.functional.mse_loss(output, case["target"])
    loss.backward()
    seconds = time.monotonic() - start
    gradients = {f"unet.{path}.lora_{letter}.weight": p.grad for path, letter, p in factors(unet) if path in CHOSEN}
    if len(gradients) != 2 * len(CHOSEN):
        raise SystemExit(f"expected gradients of both factors of {CHOSEN}, found {sorted(gradients)}")
    case |= {"loss": loss.detach().reshape(1), "output": output.detach()} | gradients
    save_file({name: tensor.contiguous() for name, tensor in case.items()}, str(arguments.folder / "case.safetensors"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"diffusers and PEFT: loss {loss.item():.6f}, forward and backward {seconds:.1f} s, peak {peak:.2f} GiB")
    for name, gradient in sorted(gradients.items()):
        print(f"  {name}: max|gradient| {gradient.abs().max().item():.3e}")


if __name__ == "__main__":
    main()
