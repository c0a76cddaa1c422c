"""Four optimizer steps of LoRA training on the unet_sd1 case, as diffusers' training script makes them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from diffusers import DDPMScheduler  # noqa: E402
from diffusers.training_utils import compute_snr  # noqa: E402
from peft import LoraConfig  # noqa: E402

from common import GOLDEN, case_folder, draw, save_case, save_tensors  # noqa: E402
from factors import factors, randomize_factors  # noqa: E402
from unet_cases import load  # noqa: E402

STEPS, ACCUMULATE, IMAGES = 4, 2, 2
RANK, ALPHA = 2, 3.0
GAMMA = 5.0
CLIP_NORM = 0.15
LEARNING_RATE, FACTORS_OF_RATE = 1e-2, (0.5, 1.0, 1.0, 0.55)  # warm-up of 2, then cosine to 0.1
TIMESTEPS = [37, 951, 0, 501, 999, 250, 120, 777, 333, 63, 10, 888, 640, 5, 410, 205]
SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "num_train_timesteps": 1000,
}


def loss_of(unet, scheduler, latents, noise, timesteps, context):
    """min-SNR weighted loss of one micro-batch: the mean over its samples."""
    noisy = scheduler.add_noise(latents, noise, timesteps)
    if scheduler.config.prediction_type == "epsilon":
        target, shift = noise, 0.0
    else:
        target, shift = scheduler.get_velocity(latents, noise, timesteps), 1.0
    snr = compute_snr(scheduler, timesteps)
    weight = torch.clamp(snr, max=GAMMA) / (snr + shift)
    output = unet(noisy, timesteps, encoder_hidden_states=context).sample
    per_sample = torch.nn.functional.mse_loss(output, target, reduction="none").mean(dim=(1, 2, 3))
    return (weight * per_sample).mean(), {"noisy": noisy, "target": target, "snr": snr, "weight": weight}


def train(prediction, inputs):
    unet, _ = load(GOLDEN / "unet_sd1")
    unet.requires_grad_(False)
    unet.add_adapter(
        LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["to_q", "to_k", "to_v", "to_out.0"], lora_dropout=0.0)
    )
    randomize_factors(unet, 902)
    unet.train()
    scheduler = DDPMScheduler(prediction_type=prediction, **SCHEDULE)
    trainable = [parameter for _, _, parameter in factors(unet)]
    names = [f"unet.{path}.lora_{letter}.weight" for path, letter, _ in factors(unet)]
    start = {name: p.detach().clone() for name, p in zip(names, trainable)}
    optimizer = torch.optim.AdamW(trainable, lr=LEARNING_RATE)
    losses, norms, first, after_one = [], [], {}, {}
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * FACTORS_OF_RATE[step]
        step_loss = 0.0
        for micro in range(ACCUMULATE):
            at = slice((step * ACCUMULATE + micro) * IMAGES, (step * ACCUMULATE + micro + 1) * IMAGES)
            loss, seen = loss_of(unet, scheduler, *(tensor[at] for tensor in inputs.values()))
            (loss / ACCUMULATE).backward()
            step_loss += loss.item() / ACCUMULATE
            if step == 0 and micro == 0:
                first = {f"{prediction}.first.{name}": tensor for name, tensor in seen.items()}
        losses.append(step_loss)
        norms.append(torch.nn.utils.clip_grad_norm_(trainable, CLIP_NORM).item())
        optimizer.step()
        optimizer.zero_grad()
        if step == 0:
            after_one = {name: p.detach().clone() for name, p in zip(names, trainable)}
    end = {name: p.detach().clone() for name, p in zip(names, trainable)}
    print(f"  {prediction}: losses {losses}, gradient norms {norms}")
    scalars = {f"{prediction}.losses": torch.tensor(losses), f"{prediction}.gradient_norms": torch.tensor(norms)}
    return start, after_one, end, first | scalars


def main():
    folder = case_folder(__file__)
    count = STEPS * ACCUMULATE * IMAGES
    inputs = {
        "latents": draw((count, 4, 8, 16), 911, 0.8),
        "noise": draw((count, 4, 8, 16), 912),
        "timesteps": torch.tensor(TIMESTEPS),
        "encoder_hidden_states": draw((count, 7, 16), 913),
    }
    case = dict(inputs)
    for prediction in ("epsilon", "v_prediction"):
        start, after_one, end, scalars = train(prediction, inputs)
        case |= scalars
        save_tensors(folder / "start.safetensors", start)
        save_tensors(folder / f"{prediction}.after_1.safetensors", after_one)
        save_tensors(folder / f"{prediction}.after_{STEPS}.safetensors", end)
    case["learning_rates"] = torch.tensor([LEARNING_RATE * factor for factor in FACTORS_OF_RATE])
    case["clip_norm"] = torch.tensor(CLIP_NORM)
    case["alpha"] = torch.tensor(ALPHA)
    case["gamma"] = torch.tensor(GAMMA)
    save_case(folder, case)


if __name__ == "__main__":
    main()
