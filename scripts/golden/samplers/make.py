"""Whole trajectories of every sampler, noising, velocity and guidance rescaling, as diffusers computes them.

The network is a formula, m(x, t) = sin(x) / 2 + 0.1 + 0.0002 t on the scaled input, so that a
difference can only come from the sampler. Step noise is the same table for all cases; it replaces
what the schedulers would draw. The last step gets zeros: ours is noiseless there.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import diffusers
import torch
from common import LIMIT_BYTES, case_folder, draw, save_versions
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from diffusers.schedulers import scheduling_ddim, scheduling_ddpm, scheduling_euler_ancestral_discrete

SHAPE = (2, 2, 1, 2)
STABLE_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
PREDICTIONS = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "trailing", "linspace")
# Name of our sampler, diffusers' class, what the class needs besides the schedule.
UNCLIPPED = {"clip_sample": False}
DDIM = {**UNCLIPPED, "set_alpha_to_one": False}
SAMPLERS = (
    ("ddim", "DDIMScheduler", DDIM),
    ("ddim_half", "DDIMScheduler", DDIM),
    ("ddim_full", "DDIMScheduler", DDIM),
    ("ddpm", "DDPMScheduler", UNCLIPPED),
    ("euler", "EulerDiscreteScheduler", {}),
    ("euler_ancestral", "EulerAncestralDiscreteScheduler", {}),
    ("dpmpp_2m", "DPMSolverMultistepScheduler", {}),
    ("dpmpp_2m_karras", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
)
ETAS = {"ddim": 0.0, "ddim_half": 0.5, "ddim_full": 1.0}
TRAINED_BETAS = [0.01 + 0.0005 * t for t in range(100)]


def numbers(tensor):
    """Nine significant digits: all that single precision holds."""
    return [float(f"{value:.9g}") for value in torch.as_tensor(tensor).double().flatten().tolist()]


def scheduler_of(class_name, fields):
    return getattr(diffusers, class_name)(**fields)


def config_of(scheduler):
    """The file that diffusers writes, without the one value that is not JSON (-Infinity)."""
    config = json.loads(scheduler.to_json_string())
    config.pop("lambda_min_clipped", None)
    return config


def toy_output(scaled, timestep):
    return 0.5 * torch.sin(scaled) + 0.1 + 0.0002 * timestep


def trajectory(sampler, class_name, fields, n_steps, start, noises):
    """All latents of one run; the step noise is put where the schedulers would draw it."""
    scheduler = scheduler_of(class_name, fields)
    scheduler.set_timesteps(n_steps)
    upcoming = []
    for module in (scheduling_ddim, scheduling_ddpm, scheduling_euler_ancestral_discrete):
        module.randn_tensor = lambda *_, **__: upcoming[-1]
    latents = start * scheduler.init_noise_sigma
    visited = []
    for step, timestep in enumerate(scheduler.timesteps):
        last = step + 1 == n_steps
        upcoming.append(torch.zeros_like(start) if last else noises[step])
        output = toy_output(scheduler.scale_model_input(latents, timestep), timestep)
        options = {"eta": ETAS[sampler]} if sampler in ETAS else {}
        latents = scheduler.step(output, timestep, latents, **options).prev_sample
        if not torch.isfinite(latents).all():
            raise SystemExit(f"{sampler} {fields}: step {step} is not finite")
        visited.append(numbers(latents))
    return {
        "sampler": sampler,
        "n_steps": n_steps,
        "config": config_of(scheduler),
        "init_noise_sigma": float(scheduler.init_noise_sigma),
        "timesteps": numbers(scheduler.timesteps),
        "latents": visited,
    }


def all_trajectories(start, noises):
    for sampler, class_name, own in SAMPLERS:
        for prediction in PREDICTIONS:
            if prediction == "sample" and sampler == "euler_ancestral":
                continue  # diffusers does not implement it
            for spacing in SPACINGS:
                fields = {**STABLE_DIFFUSION, **own, "prediction_type": prediction, "timestep_spacing": spacing}
                yield trajectory(sampler, class_name, fields, 9, start, noises)
        base = {**STABLE_DIFFUSION, **own, "timestep_spacing": "trailing"}
        rescaled = {**base, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
        if sampler != "ddim_full":  # diffusers takes the root of -1e-8 there
            yield trajectory(sampler, class_name, rescaled, 6, start, noises)
        other = {**own, "num_train_timesteps": 100, "trained_betas": TRAINED_BETAS, "timestep_spacing": "leading"}
        yield trajectory(sampler, class_name, other, 7, start, noises)
        yield trajectory(sampler, class_name, {**own, "beta_schedule": "linear"}, 13, start, noises)
        if class_name in ("DDIMScheduler", "DDPMScheduler"):
            clipped = {**base, "clip_sample": True, "clip_sample_range": 0.8}
            yield trajectory(sampler, class_name, clipped, 6, start, noises)


def noising():
    """alphas_cumprod, add_noise and get_velocity for four schedules."""
    clean, noise = draw(SHAPE, 11), draw(SHAPE, 12)
    timesteps = torch.tensor([3, 500])
    shown = [0, 1, 10, 100, 250, 500, 750, 900, 998, 999]
    cases = []
    for fields in (
        STABLE_DIFFUSION,
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {**STABLE_DIFFUSION, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ):
        scheduler = scheduler_of("DDPMScheduler", fields)
        cases.append(
            {
                "config": config_of(scheduler),
                "alphas_cumprod": [[t, float(scheduler.alphas_cumprod[t])] for t in shown],
                "noisy": numbers(scheduler.add_noise(clean, noise, timesteps)),
                "velocity": numbers(scheduler.get_velocity(clean, noise, timesteps)),
            }
        )
    return {"clean": numbers(clean), "noise": numbers(noise), "timesteps": timesteps.tolist(), "schedules": cases}


def guidance():
    """Guidance with scale 7.5, plain and rescaled by 0.7."""
    unconditional, conditional = draw(SHAPE, 21), draw(SHAPE, 22)
    guided = unconditional + 7.5 * (conditional - unconditional)
    rescaled = rescale_noise_cfg(guided, conditional, guidance_rescale=0.7)
    return {
        "unconditional": numbers(unconditional),
        "conditional": numbers(conditional),
        "guided": numbers(guided),
        "rescaled": numbers(rescaled),
    }


def defaults():
    """What each class writes when nothing is given."""
    names = ("DDIM", "DDPM", "PNDM", "EulerDiscrete", "EulerAncestralDiscrete")
    names += ("DPMSolverMultistep", "UniPCMultistep", "HeunDiscrete")
    return [config_of(scheduler_of(f"{name}Scheduler", {})) for name in names]


def main():
    folder = case_folder(__file__)
    start = draw(SHAPE, 1)
    noises = [draw(SHAPE, 100 + step) for step in range(13)]
    content = {
        "shape": SHAPE,
        "start": numbers(start),
        "noises": [numbers(noise) for noise in noises],
        "trajectories": list(all_trajectories(start, noises)),
        "noising": noising(),
        "guidance": guidance(),
        "defaults": defaults(),
    }
    sections = [f'"{name}": ' + text(section) for name, section in content.items()]
    path = folder / "cases.json"
    path.write_text("{\n" + ",\n".join(sections) + "\n}\n")
    if path.stat().st_size >= LIMIT_BYTES:
        raise SystemExit(f"{path}: {path.stat().st_size} bytes, the limit is {LIMIT_BYTES}")
    save_versions(folder)
    print(f"  {folder.name}/cases.json: {len(content['trajectories'])} trajectories, {path.stat().st_size} bytes")


def text(section):
    """JSON with one line per entry of a list."""
    if isinstance(section, list) and section and isinstance(section[0], (dict, list)):
        return "[\n" + ",\n".join(json.dumps(entry, allow_nan=False) for entry in section) + "\n]"
    return json.dumps(section, allow_nan=False)


if __name__ == "__main__":
    main()
