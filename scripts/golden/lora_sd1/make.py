"""PEFT LoRA on the unet_sd1 case: output, loss, gradients of every factor, and the file in each form."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import json  # noqa: E402
import tempfile  # noqa: E402

import torch  # noqa: E402
from diffusers import StableDiffusionPipeline  # noqa: E402
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from common import GOLDEN, case_folder, draw, save_case, save_tensors  # noqa: E402
from factors import factors, randomize_factors  # noqa: E402
from unet_cases import forward, load  # noqa: E402

RANK = 4
CONV_RANK = 2
ALPHA = 3.0
DOSE = 0.5
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
TARGETS += ["conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv"]


def lora_config():
    """Ranks differ, alpha is one: the only mixture that every reader of the kohya form gets right."""
    ranks = {name: CONV_RANK for name in ("conv1", "conv2", "downsamplers.0.conv", "upsamplers.0.conv")}
    return LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, rank_pattern=ranks, lora_dropout=0.0, bias="none"
    )


def kohya_form(unet):
    tensors = {}
    for path, letter, parameter in factors(unet):
        stem = "lora_unet_" + path.replace(".", "_")
        tensors[f"{stem}.lora_{'down' if letter == 'A' else 'up'}.weight"] = parameter
        tensors[f"{stem}.alpha"] = torch.tensor(ALPHA)
    return tensors


def sorted_sets(metadata):
    """PEFT writes its set of targets in a random order."""
    config = json.loads(metadata["lora_adapter_metadata"])
    config = {k: sorted(v) if k.endswith("target_modules") else v for k, v in config.items()}
    return metadata | {"lora_adapter_metadata": json.dumps(config, indent=2, sort_keys=True)}


def save_forms(folder, unet, config):
    """The same adapter as diffusers' pipeline, diffusers' model, PEFT and kohya write it."""
    state = get_peft_model_state_dict(unet)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        StableDiffusionPipeline.save_lora_weights(
            scratch / "pipeline",
            unet_lora_layers=state,
            unet_lora_adapter_metadata=unet.peft_config["default"].to_dict(),
        )
        unet.save_lora_adapter(scratch / "model", adapter_name="default")
        for source, name in (("pipeline", "pytorch_lora_weights"), ("model", "save_lora_adapter")):
            file = scratch / source / "pytorch_lora_weights.safetensors"
            with safe_open(str(file), "pt") as opened:
                metadata = sorted_sets(opened.metadata())
            save_tensors(folder / f"{name}.safetensors", load_file(str(file)), metadata)
        plain, _ = load(GOLDEN / "unet_sd1")
        native = get_peft_model(plain, config)
        native.base_model.model.load_state_dict(unet.state_dict(), strict=True)
        native.save_pretrained(scratch / "peft")
        save_tensors(
            folder / "adapter_model.safetensors", load_file(str(scratch / "peft" / "adapter_model.safetensors"))
        )
        adapter_config = json.loads((scratch / "peft" / "adapter_config.json").read_text())
        adapter_config["target_modules"] = sorted(adapter_config["target_modules"])
        (folder / "adapter_config.json").write_text(json.dumps(adapter_config, indent=2, sort_keys=True) + "\n")
    save_tensors(
        folder / "kohya.safetensors",
        kohya_form(unet),
        {"ss_network_module": "networks.lora", "ss_network_dim": str(RANK), "ss_network_alpha": str(ALPHA)},
    )


def check_read_back(folder, inputs, expected):
    """diffusers must get the same output from the files it reads."""
    for name in ("pytorch_lora_weights.safetensors", "kohya.safetensors"):
        plain, _ = load(GOLDEN / "unet_sd1")
        state, alphas, metadata = StableDiffusionPipeline.lora_state_dict(
            str(folder), weight_name=name, unet_config=plain.config, return_lora_metadata=True
        )
        StableDiffusionPipeline.load_lora_into_unet(state, network_alphas=alphas, unet=plain, metadata=metadata)
        with torch.no_grad():
            worst = (forward(plain, inputs) - expected).abs().max().item()
        print(f"  read back {name}: max |delta| {worst:.2e}")
        if worst > 2e-5:
            raise SystemExit(f"diffusers reads {name} otherwise than it was meant")


def main():
    folder = case_folder(__file__)
    unet, inputs = load(GOLDEN / "unet_sd1")
    target = draw(inputs["sample"].shape, 701)
    with torch.no_grad():
        output_base = forward(unet, inputs)
    config = lora_config()
    unet.add_adapter(config)
    randomize_factors(unet, 702)
    unet.eval()
    output = forward(unet, inputs)
    loss = torch.nn.functional.mse_loss(output, target)
    loss.backward()
    grads = {f"unet.{path}.lora_{letter}.weight": p.grad for path, letter, p in factors(unet)}
    print(f"  {len(grads) // 2} adapted modules")
    save_tensors(folder / "gradients.safetensors", grads)
    save_forms(folder, unet, config)
    check_read_back(folder, inputs, output.detach())
    unet.set_adapters("default", DOSE)
    with torch.no_grad():
        output_dosed = forward(unet, inputs)
    save_case(
        folder,
        inputs
        | {
            "target": target,
            "output_base": output_base,
            "output": output,
            "dose": torch.tensor(DOSE),
            "output_dosed": output_dosed,
            "loss": loss,
        },
    )


if __name__ == "__main__":
    main()
