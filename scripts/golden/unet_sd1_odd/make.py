"""The unet_sd1 case on latents that the levels cannot halve evenly: outputs, and gradients through the odd sizes."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402

from common import GOLDEN, case_folder, draw, gradients, save_case  # noqa: E402
from unet_cases import forward, load  # noqa: E402

# Going down 7, 4, 2 and 10, 5, 3: each upsampler doubles one side and is one short in the other.
SAMPLE = (2, 4, 7, 10)
LOW = (2, 4, 1, 3)
WEIGHTS = ("conv_in", "up_blocks.0.upsamplers.0.conv", "up_blocks.1.upsamplers.0.conv")


def main():
    folder = case_folder(__file__)
    unet, inputs = load(GOLDEN / "unet_sd1")
    inputs["sample"] = draw(SAMPLE, 161)
    low = draw(LOW, 162)
    target = draw(SAMPLE, 163)
    with torch.no_grad():
        low_output = forward(unet, inputs | {"sample": low})
    output = forward(unet, inputs)
    loss = torch.nn.functional.mse_loss(output, target)
    loss.backward()
    grads = gradients(unet)
    tensors = inputs | {"target": target, "output": output, "loss": loss}
    tensors |= {"low.sample": low, "low.output": low_output}
    tensors |= {f"gradient.{name}.weight": grads[f"{name}.weight"] for name in WEIGHTS}
    save_case(folder, tensors)


if __name__ == "__main__":
    main()
