"""Gradients of all parameters of the unet_sd1 case, for full fine-tuning."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402

from common import GOLDEN, case_folder, draw, gradients, save_case, save_tensors  # noqa: E402
from unet_cases import forward, load  # noqa: E402


def main():
    folder = case_folder(__file__)
    unet, inputs = load(GOLDEN / "unet_sd1")
    target = draw(inputs["sample"].shape, 601)
    output = forward(unet, inputs)
    loss = torch.nn.functional.mse_loss(output, target)
    loss.backward()
    grads = gradients(unet)
    if len(grads) != len(list(unet.parameters())):
        raise SystemExit("a parameter got no gradient")
    save_tensors(folder / "gradients.safetensors", grads)
    save_case(folder, inputs | {"target": target, "output": output, "loss": loss})


if __name__ == "__main__":
    main()
