"""SDXL in miniature: text_time embedding, depth per level, plain first level, linear projections."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import case_folder  # noqa: E402
from unet_cases import make  # noqa: E402

POOLED_DIM = 20
TIME_DIM = 6

CONFIG = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (8, 16, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 1, 2),
    "cross_attention_dim": 16,
    "attention_head_dim": (1, 2, 4),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": TIME_DIM,
    "projection_class_embeddings_input_dim": POOLED_DIM + 6 * TIME_DIM,
    "norm_num_groups": 4,
}

if __name__ == "__main__":
    make(
        case_folder(__file__),
        CONFIG,
        seed=301,
        height=8,
        width=16,
        tokens=7,
        timesteps=[761, 19],
        pooled_dim=POOLED_DIM,
    )
