"""CLIP vision tower with projection."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection  # noqa: E402

from common import case_folder, draw, randomize, save_case, save_model  # noqa: E402

CONFIG = {
    "hidden_size": 24,
    "intermediate_size": 96,
    "projection_dim": 14,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": 20,
    "patch_size": 4,
    "hidden_act": "quick_gelu",
}


def main():
    folder = case_folder(__file__)
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**CONFIG)).eval()
    randomize(model, 541)
    pixels = draw((2, 3, 20, 20), 542)
    with torch.no_grad():
        output = model(pixel_values=pixels, output_hidden_states=True)
        pooled = model.vision_model(pixel_values=pixels).pooler_output
    hidden = {f"hidden.{i}": state for i, state in enumerate(output.hidden_states)}
    save_model(model, folder)
    save_case(
        folder,
        {
            "pixel_values": pixels,
            "last_hidden_state": output.last_hidden_state,
            "pooler_output": pooled,
            "image_embeds": output.image_embeds,
        }
        | hidden,
    )


if __name__ == "__main__":
    main()
