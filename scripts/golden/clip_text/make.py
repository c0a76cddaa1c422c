"""CLIP text encoder as in SD 1.x: quick_gelu, no projection, pooled at the largest id (eos_token_id 2)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModel  # noqa: E402

from common import case_folder, draw, gradients, randomize, save_case, save_model, save_tensors  # noqa: E402

CONFIG = {
    "vocab_size": 64,
    "hidden_size": 24,
    "intermediate_size": 96,
    "projection_dim": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 12,
    "hidden_act": "quick_gelu",
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
# 62 starts, 63 ends and pads, as 49406 and 49407 do. The second row holds a 2,
# which the other pooling rule would take for the end.
IDS = [
    [62, 5, 9, 33, 17, 40, 63, 63, 63, 63, 63, 63],
    [62, 8, 2, 51, 0, 1, 29, 8, 12, 44, 60, 63],
    [62, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63],
]


def main():
    folder = case_folder(__file__)
    model = CLIPTextModel(CLIPTextConfig(**CONFIG)).eval()
    randomize(model, 501)
    ids = torch.tensor(IDS)
    output = model(input_ids=ids, output_hidden_states=True)
    hidden = {f"hidden.{i}": state for i, state in enumerate(output.hidden_states)}
    target = draw(output.last_hidden_state.shape, 502)
    loss = torch.nn.functional.mse_loss(output.last_hidden_state, target)
    loss.backward()
    save_model(model, folder)
    save_tensors(folder / "gradients.safetensors", gradients(model))
    save_case(
        folder,
        {
            "input_ids": ids,
            "last_hidden_state": output.last_hidden_state,
            "pooler_output": output.pooler_output,
            "target": target,
            "loss": loss,
        }
        | hidden,
    )


if __name__ == "__main__":
    main()
