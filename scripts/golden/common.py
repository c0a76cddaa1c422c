"""Shared by every case: seeding, non-trivial random parameters, and how a case is written."""

import importlib.metadata
import json
import platform
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).resolve().parent
LIMIT_BYTES = 1_000_000
PACKAGES = ("torch", "numpy", "safetensors", "diffusers", "transformers", "peft", "tokenizers")

torch.use_deterministic_algorithms(True)
torch.set_num_threads(1)
torch.set_default_dtype(torch.float32)


def case_folder(script: str) -> Path:
    """The folder of the calling make.py, where its fixtures go."""
    return Path(script).resolve().parent


def randomize(module: torch.nn.Module, seed: int) -> None:
    """Gives every parameter a value that matters: no gamma is 1, no bias is 0.

    Drawn in the order of the sorted names, so that the order in which a
    library registers its parameters does not change the fixture.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = {
        name
        for name, layer in module.named_modules()
        if isinstance(layer, (torch.nn.GroupNorm, torch.nn.LayerNorm))
    }
    embeddings = {
        name for name, layer in module.named_modules() if isinstance(layer, torch.nn.Embedding)
    }
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            draw = torch.randn(parameter.shape, generator=generator)
            owner, _, leaf = name.rpartition(".")
            if owner in norms and leaf == "weight":
                parameter.copy_(1.0 + 0.3 * draw)
            elif leaf == "bias":
                parameter.copy_(0.2 * draw)
            elif owner in embeddings or parameter.dim() == 1:
                parameter.copy_(0.7 * draw)
            elif parameter.dim() >= 2:
                fan_in = parameter[0].numel()
                parameter.copy_(draw * 1.2 / fan_in**0.5)
            else:  # logit_scale
                parameter.copy_(torch.tensor(1.7))


def draw(shape, seed: int, scale: float = 1.0) -> torch.Tensor:
    """Normal values from their own seed."""
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Tap:
    """Collects the outputs of named layers during one forward pass."""

    def __init__(self, module: torch.nn.Module, paths):
        self.outputs = {}
        self.handles = [module.get_submodule(path).register_forward_hook(self.hook(path)) for path in paths]

    def hook(self, path):
        def keep(_module, _inputs, output):
            first = output[0] if isinstance(output, tuple) else output
            first = first.sample if hasattr(first, "sample") else first
            self.outputs[f"intermediate.{path}"] = first.detach().clone()

        return keep

    def close(self):
        for handle in self.handles:
            handle.remove()
        return self.outputs


def save_tensors(path: Path, tensors, metadata=None, limit_bytes=LIMIT_BYTES) -> None:
    """Writes a safetensors file and refuses one that is too large or not finite."""
    plain = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous().clone()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise SystemExit(f"{path}: {name} is not finite")
        plain[name] = tensor
    save_file(plain, str(path), metadata=metadata or {"format": "pt"})
    sort_metadata(path)
    path.chmod(0o644)
    size = path.stat().st_size
    if size >= limit_bytes:
        raise SystemExit(f"{path}: {size} bytes, the limit is {limit_bytes}")


def sort_metadata(path: Path) -> None:
    """Puts __metadata__ in order: safetensors writes it in a random one."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    if len(text) > length:
        raise SystemExit(f"{path}: the sorted header is longer than the first")
    path.write_bytes(content[:8] + text.ljust(length) + content[8 + length :])


def save_model(model, folder: Path) -> None:
    """config.json and weights.safetensors, both exactly as save_pretrained names things."""
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch, safe_serialization=True)
        shutil.copyfile(Path(scratch, "config.json"), folder / "config.json")
        (written,) = Path(scratch).glob("*.safetensors")
        with safe_open(str(written), "pt") as file:
            metadata = file.metadata()
        save_tensors(folder / "weights.safetensors", load_file(str(written)), metadata)


def save_case(folder: Path, tensors) -> None:
    """case.safetensors: inputs and expected outputs, and versions.txt beside it."""
    save_tensors(folder / "case.safetensors", tensors)
    save_versions(folder)
    for name, tensor in sorted(tensors.items()):
        kind = str(tensor.dtype).removeprefix("torch.")
        spread = f"max|x| {tensor.abs().max().item():.4g}" if tensor.numel() else "empty"
        print(f"  {folder.name}/{name}: {kind} {list(tensor.shape)} {spread}")


def save_versions(folder: Path) -> None:
    """The packages that made the fixture."""
    lines = [f"python=={platform.python_version()}"]
    lines += [f"{name}=={importlib.metadata.version(name)}" for name in PACKAGES]
    (folder / "versions.txt").write_text("\n".join(lines) + "\n")


def gradients(module: torch.nn.Module):
    """Gradients of all parameters that have one, under their state-dict names."""
    return {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}
