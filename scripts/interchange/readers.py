"""Adapter files as diffusers reads them, with every word that it has to say about them."""

import logging
import warnings
from pathlib import Path

import diffusers
import torch
from safetensors import safe_open

from program import Failed

SUFFIXES = (".lora_down.weight", ".lora_up.weight", ".alpha", ".lora_A.weight", ".lora_B.weight")
SUFFIXES += (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")
PARTS = ("unet", "text_encoder", "text_encoder_2")
# diffusers remarks on each component that an adapter does not touch; the account of the modules settles those.
HARMLESS = ("No LoRA keys associated to",)


class Collect(logging.Handler):
    """Keeps warnings that would only be printed."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def attach(pipeline, path, dose):
    """Loads an adapter and fails on any complaint, or on a module of the file that no layer carries."""
    path = Path(path)
    with safe_open(str(path), "pt") as file:
        keys = list(file.keys())
    stems = {next((key.removesuffix(suffix) for suffix in SUFFIXES if key.endswith(suffix)), None) for key in keys}
    if None in stems:
        raise Failed(f"{path.name} holds keys that belong to no LoRA")
    collected = Collect()
    root = diffusers.utils.logging.get_logger("diffusers")
    loggers = [root, logging.getLogger("transformers"), logging.getLogger("peft")]
    level = root.level
    root.setLevel(logging.WARNING)
    diffusers.utils.logging.disable_default_handler()
    for logger in loggers:
        logger.addHandler(collected)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="adapter")
    except (ValueError, RuntimeError, KeyError, IndexError) as error:
        raise Failed(f"diffusers refuses {path.name}: {error}") from error
    finally:
        for logger in loggers:
            logger.removeHandler(collected)
        root.setLevel(level)
        diffusers.utils.logging.enable_default_handler()
    said = collected.lines + [str(warning.message) for warning in warned]
    said = [line for line in said if not line.startswith(HARMLESS)]
    if said:
        raise Failed(f"diffusers says of {path.name}: " + " | ".join(said))
    n_placed = sum(placed(getattr(pipeline, part)) for part in PARTS if getattr(pipeline, part, None) is not None)
    if n_placed != len(stems):
        raise Failed(f"diffusers found a place for {n_placed} of the {len(stems)} modules in {path.name}")
    pipeline.to(torch.float32)
    pipeline.set_adapters(["adapter"], [float(dose)])
    return n_placed


def placed(network):
    return sum("adapter" in (getattr(module, "lora_A", None) or {}) for module in network.modules())
