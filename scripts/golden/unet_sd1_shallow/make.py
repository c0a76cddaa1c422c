"""As SD 1.x, but one layer per block, plain first level, three widths: the plan of the postcards base."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import case_folder  # noqa: E402
from unet_cases import make  # noqa: E402

CONFIG = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": (8, 16, 24),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
}

if __name__ == "__main__":
    make(case_folder(__file__), CONFIG, seed=151, height=16, width=8, tokens=5, timesteps=[1, 999])
