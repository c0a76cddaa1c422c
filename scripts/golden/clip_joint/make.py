"""Both CLIP towers: unit embeddings, logits, the contrastive loss and the gradient of every parameter."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from transformers import CLIPConfig, CLIPModel  # noqa: E402

from common import case_folder, draw, gradients, randomize, save_case, save_model, save_tensors  # noqa: E402

PROJECTION_DIM = 10
TEXT = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 64,
    "projection_dim": PROJECTION_DIM,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 8,
    "hidden_act": "quick_gelu",
    "bos_token_id": 46,
    "eos_token_id": 47,
    "pad_token_id": 47,
}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "projection_dim": PROJECTION_DIM,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 16,
    "patch_size": 8,
    "hidden_act": "quick_gelu",
}
IDS = [
    [46, 5, 9, 33, 17, 40, 47, 47],
    [46, 8, 2, 31, 11, 1, 29, 47],
    [46, 47, 47, 47, 47, 47, 47, 47],
]


def main():
    folder = case_folder(__file__)
    model = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=PROJECTION_DIM)).eval()
    randomize(model, 561)
    ids = torch.tensor(IDS)
    pixels = draw((3, 3, 16, 16), 562)
    output = model(input_ids=ids, pixel_values=pixels, return_loss=True)
    output.loss.backward()
    save_model(model, folder)
    save_tensors(folder / "gradients.safetensors", gradients(model))
    save_case(
        folder,
        {
            "input_ids": ids,
            "pixel_values": pixels,
            "text_embeds": output.text_embeds,
            "image_embeds": output.image_embeds,
            "logits_per_image": output.logits_per_image,
            "logits_per_text": output.logits_per_text,
            "loss": output.loss,
        },
    )


if __name__ == "__main__":
    main()
