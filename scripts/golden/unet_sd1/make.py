"""SD 1.x in miniature: conv projections, attention_head_dim meaning the number of heads."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import case_folder  # noqa: E402
from unet_cases import make  # noqa: E402

CONFIG = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (8, 16, 16),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}

if __name__ == "__main__":
    make(case_folder(__file__), CONFIG, seed=101, height=8, width=16, tokens=7, timesteps=[951, 37])
