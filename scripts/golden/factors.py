"""LoRA factors of a model that carries one PEFT adapter named default."""

import torch


def factors(model):
    """(module path, 'A' or 'B', parameter), sorted."""
    found = []
    for name, parameter in model.named_parameters():
        for letter in "AB":
            path, marker, _ = name.partition(f".lora_{letter}.default.weight")
            if marker:
                found.append((path, letter, parameter))
    return sorted(found, key=lambda entry: entry[:2])


def randomize_factors(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, letter, parameter in factors(model):
            scale = 1.0 / parameter[0].numel() ** 0.5 if letter == "A" else 0.25
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
