"""What a card can do and what a step asks of it: one JSON line, for check.py.

    python rates.py --device cuda --flops sd15:64:8:16 --flops sdxl:128:4:16

`matmul`: TFLOP/s of bf16 products of square matrices in torch, by their side. `flops`: floating-point operations of a
forward pass and of a LoRA step of the peer's UNet (config:latent:batch:rank), counted by torch on tensors without
values; a multiplication with its addition is two. Frozen weights get no gradient, and nothing is computed twice.
"""

import argparse
import json
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))

import torch  # noqa: E402
from diffusers import UNet2DConditionModel  # noqa: E402
from peft import LoraConfig  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import rows  # noqa: E402
from peer_step import CONFIGS  # noqa: E402

SIDES = (4096, 6144, 8192)
N_WARMUP, N_TIMED = 10, 30


def matmul_tflops(side, device):
    """TFLOP/s of one size: the median of single products."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(N_WARMUP):
        a @ b
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(N_TIMED)]
    for begin, end in marks:
        begin.record()
        a @ b
        end.record()
    torch.cuda.synchronize()
    seconds = sorted(begin.elapsed_time(end) / 1000 for begin, end in marks)[N_TIMED // 2]
    return 2 * side**3 / seconds / 1e12


def step_flops(name, side, batch, rank):
    """Operations of a forward pass and of a step."""
    config = CONFIGS[name]
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config).requires_grad_(False)
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=rows.TARGETS.split(",")))
        unet.train()
        noisy, times = torch.randn(batch, 4, side, side), torch.zeros(batch, dtype=torch.long)
        context = torch.randn(batch, 77, config["cross_attention_dim"])
        extra = {}
        if config.get("addition_embed_type") == "text_time":
            added = {"text_embeds": torch.randn(batch, 1280), "time_ids": torch.zeros(batch, 6)}
            extra["added_cond_kwargs"] = added
        with FlopCounterMode(display=False) as counter:
            output = unet(noisy, times, context, **extra).sample
            forward = counter.get_total_flops()
            output.pow(2).mean().backward()
            return {"forward": forward, "step": counter.get_total_flops()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--flops", action="append", default=[], metavar="CONFIG:LATENT:BATCH:RANK")
    arguments = parser.parse_args()
    on_card = arguments.device.startswith("cuda")
    record = {
        "card": torch.cuda.get_device_name() if on_card else None,
        "torch": torch.__version__,
        "matmul": {side: matmul_tflops(side, arguments.device) for side in SIDES} if on_card else {},
        "flops": {},
    }
    for wanted in arguments.flops:
        name, *numbers = wanted.split(":")
        record["flops"][wanted] = step_flops(name, *map(int, numbers))
    print(json.dumps(record))


if __name__ == "__main__":
    main()
