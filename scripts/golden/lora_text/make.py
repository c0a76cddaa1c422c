"""PEFT LoRA on the clip_text case: output, loss, gradients of every factor."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from peft import LoraConfig  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModel  # noqa: E402

from common import GOLDEN, case_folder, save_case, save_tensors  # noqa: E402
from factors import factors, randomize_factors  # noqa: E402

RANK, ALPHA = 3, 4.0
TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def main():
    folder = case_folder(__file__)
    source = GOLDEN / "clip_text"
    model = CLIPTextModel(CLIPTextConfig.from_json_file(str(source / "config.json"))).eval()
    model.load_state_dict(load_file(str(source / "weights.safetensors")), strict=True)
    case = load_file(str(source / "case.safetensors"))
    model.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, lora_dropout=0.0))
    randomize_factors(model, 951)
    model.eval()
    output = model(input_ids=case["input_ids"]).last_hidden_state
    loss = torch.nn.functional.mse_loss(output, case["target"])
    loss.backward()
    found = factors(model)
    # text_model. stands in every reader's names, whether or not transformers writes it.
    names = [f"text_encoder.text_model.{path}.lora_{letter}.weight" for path, letter, _ in found]
    save_tensors(folder / "factors.safetensors", dict(zip(names, (p for _, _, p in found))))
    save_tensors(folder / "gradients.safetensors", dict(zip(names, (p.grad for _, _, p in found))))
    kohya = {}
    for path, letter, parameter in found:
        stem = "lora_te_text_model_" + path.replace(".", "_")
        kohya[f"{stem}.lora_{'down' if letter == 'A' else 'up'}.weight"] = parameter
        kohya[f"{stem}.alpha"] = torch.tensor(ALPHA)
    save_tensors(folder / "kohya.safetensors", kohya)
    save_case(
        folder,
        {
            "input_ids": case["input_ids"],
            "target": case["target"],
            "alpha": torch.tensor(ALPHA),
            "last_hidden_state": output,
            "loss": loss,
        },
    )


if __name__ == "__main__":
    main()
