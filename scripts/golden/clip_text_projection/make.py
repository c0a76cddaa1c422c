"""CLIP text encoder as in SDXL's second: gelu, projection, pooled at the first eos_token_id."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModelWithProjection  # noqa: E402

from common import case_folder, randomize, save_case, save_model  # noqa: E402

CONFIG = {
    "vocab_size": 64,
    "hidden_size": 20,
    "intermediate_size": 80,
    "projection_dim": 14,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "max_position_embeddings": 10,
    "hidden_act": "gelu",
    "bos_token_id": 49,
    "eos_token_id": 50,
    "pad_token_id": 0,
}
# Ids above 50 stand before and after the end, so that the largest id is the
# wrong place to pool; the second row ends at its last place.
IDS = [
    [49, 5, 61, 33, 50, 0, 0, 55, 50, 0],
    [49, 63, 7, 12, 58, 1, 20, 21, 22, 50],
]


def main():
    folder = case_folder(__file__)
    model = CLIPTextModelWithProjection(CLIPTextConfig(**CONFIG)).eval()
    randomize(model, 521)
    ids = torch.tensor(IDS)
    with torch.no_grad():
        output = model(input_ids=ids, output_hidden_states=True)
        pooled = model.text_model(input_ids=ids).pooler_output
    hidden = {f"hidden.{i}": state for i, state in enumerate(output.hidden_states)}
    save_model(model, folder)
    save_case(
        folder,
        {
            "input_ids": ids,
            "last_hidden_state": output.last_hidden_state,
            "pooler_output": pooled,
            "text_embeds": output.text_embeds,
        }
        | hidden,
    )


if __name__ == "__main__":
    main()
