"""Each op of `models::ops` by PyTorch in double precision: outputs and gradients, at odd shapes, and AdamW over 100 steps."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from torch.nn import functional  # noqa: E402

from common import case_folder, draw, save_case  # noqa: E402

# batch, heads, queries, keys, head: every head size of SD 1.5 and SDXL, self and cross attention.
ATTENTION = [(2, 3, 9, 9, 40), (1, 2, 11, 7, 64), (2, 1, 7, 7, 80), (1, 2, 3, 13, 160), (1, 1, 1, 3, 1)]
# shape, groups
GROUP_NORM = [((2, 6, 5, 3), 3), ((1, 4, 7, 7), 1), ((3, 32, 1, 1), 8)]
LAYER_NORM = [(2, 3, 33), (1, 1, 5)]
GATED = [(2, 3, 10), (1, 7, 66)]
# shape, outputs, kernel, stride, padding
CONVOLUTION = [
    ((1, 3, 9, 7), 5, 3, 1, 1),
    ((1, 17, 13, 14), 6, 3, 1, 1),
    ((1, 4, 16, 13), 18, 3, 1, 1),
    ((2, 5, 7, 6), 4, 3, 2, 1),
    ((3, 6, 5, 5), 7, 1, 1, 0),
]
# shape, outputs, rank
LOW_RANK = [((2, 5, 7), 9, 3), ((1, 13, 20), 140, 4)]
STEPS = 100


class Case:
    """Draws inputs and records them with the outputs and gradients of ops over them."""

    def __init__(self):
        self.tensors = {}
        self.seed = 500

    def drawn(self, name, shape):
        self.seed += 1
        value = draw(shape, self.seed)
        self.tensors[name] = value
        return value.double()

    def record(self, name, op, inputs, constants=()):
        """`op` over named inputs that need gradients, and constants that do not."""
        leaves = [self.drawn(f"{name}.{key}", shape).requires_grad_() for key, shape in inputs.items()]
        rest = [self.drawn(f"{name}.{key}", shape) for key, shape in dict(constants).items()]
        output = op(*leaves, *rest)
        slope = self.drawn(f"{name}.slope", output.shape)
        (output * slope).sum().backward()
        self.tensors[f"{name}.output"] = output.detach().float()
        for key, leaf in zip(inputs, leaves):
            self.tensors[f"{name}.gradient.{key}"] = leaf.grad.float()


def adamw(case, name, limit):
    """100 updates with the gradients that are drawn, clipped to `limit` together."""
    theta = case.drawn(f"{name}.theta", (37,)).requires_grad_()
    slopes = case.drawn(f"{name}.gradients", (STEPS, 37))
    optimizer = torch.optim.AdamW([theta], lr=1e-2, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
    for slope in slopes:
        theta.grad = slope.clone()
        torch.nn.utils.clip_grad_norm_([theta], limit)
        optimizer.step()
    case.tensors[f"{name}.output"] = theta.detach().float()


def main():
    case = Case()
    for i, (batch, heads, queries, keys, head) in enumerate(ATTENTION):
        shapes = {"q": (batch, heads, queries, head), "k": (batch, heads, keys, head), "v": (batch, heads, keys, head)}
        case.record(f"attention.{i}", functional.scaled_dot_product_attention, shapes)
    for i, (shape, groups) in enumerate(GROUP_NORM):
        def norm(x, weight, bias, groups=groups):
            return functional.silu(functional.group_norm(x, groups, weight, bias, 1e-5))
        case.record(f"group_norm.{i}", norm, {"x": shape, "weight": shape[1:2], "bias": shape[1:2]})
    for i, shape in enumerate(LAYER_NORM):
        def norm(x, weight, bias, width=shape[-1:]):
            return functional.layer_norm(x, width, weight, bias, 1e-5)
        case.record(f"layer_norm.{i}", norm, {"x": shape, "weight": shape[-1:], "bias": shape[-1:]})
    for i, shape in enumerate(GATED):
        def gated(x):
            value, gate = x.chunk(2, -1)
            return value * functional.gelu(gate)
        case.record(f"geglu.{i}", gated, {"x": shape})
    case.record("silu", functional.silu, {"x": (131,)})
    case.record("gelu", functional.gelu, {"x": (131,)})
    case.record("quick_gelu", lambda x: x * torch.sigmoid(1.702 * x), {"x": (131,)})
    for i, (shape, outputs, kernel, stride, padding) in enumerate(CONVOLUTION):
        def convolve(x, weight, bias, stride=stride, padding=padding):
            return functional.conv2d(x, weight, bias, stride, padding)
        weight = (outputs, shape[1], kernel, kernel)
        case.record(f"convolution.{i}", convolve, {"x": shape, "weight": weight, "bias": (outputs,)})
    for i, (shape, outputs, rank) in enumerate(LOW_RANK):
        def low_rank(x, down, up, weight, bias):
            return functional.linear(x, weight, bias) + functional.linear(functional.linear(x, down), up)
        inputs = {"x": shape, "down": (rank, shape[-1]), "up": (outputs, rank)}
        case.record(f"low_rank.{i}", low_rank, inputs, {"weight": (outputs, shape[-1]), "bias": (outputs,)})
    adamw(case, "adamw.clipped", 1.0)
    adamw(case, "adamw.free", 1e6)
    save_case(case_folder(__file__), case.tensors)


if __name__ == "__main__":
    main()
