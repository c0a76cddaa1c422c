"""Whole trajectories of every sampler, from noise and from a noised picture, noising, velocity and guidance
rescaling, as diffusers computes them.

The network is a formula, m(x, t) = sin(x) / 2 + 0.1 + 0.0002 t on the scaled input, so that a
difference can only come from the sampler. Step noise is the same table for all cases; it replaces
what the schedulers would draw. The last step gets zeros, as ours is noiseless there, except in the
cases of `noisy_ends`.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import diffusers
import torch
from common import LIMIT_BYTES, case_folder, draw, save_versions
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import StableDiffusionImg2ImgPipeline
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
# With 9 steps, 0.3 and 0.75 fall between two steps.
STRENGTHS = (0.3, 0.75, 1.0)
CLEAN_SEED = 31
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


def denoised(scheduler, sampler, first, latents, noises):
    """Latents after each step from `first` on; the step noise is put where the schedulers would draw it."""
    upcoming = []
    for module in (scheduling_ddim, scheduling_ddpm, scheduling_euler_ancestral_discrete):
        module.randn_tensor = lambda *_, **__: upcoming[-1]
    visited = []
    for step, timestep in list(enumerate(scheduler.timesteps))[first:]:
        upcoming.append(noises[step] if step < len(noises) else torch.zeros_like(latents))
        output = toy_output(scheduler.scale_model_input(latents, timestep), timestep)
        options = {"eta": ETAS[sampler]} if sampler in ETAS else {}
        latents = scheduler.step(output, timestep, latents, **options).prev_sample
        if not torch.isfinite(latents).all():
            raise SystemExit(f"{sampler} {scheduler.config}: step {step} is not finite")
        visited.append(numbers(latents))
    return visited


def trajectory(sampler, class_name, fields, n_steps, start, noises, noisy_end=False):
    """All latents of one run from noise."""
    scheduler = scheduler_of(class_name, fields)
    scheduler.set_timesteps(n_steps)
    n_noisy = n_steps if noisy_end else n_steps - 1
    return {
        "sampler": sampler,
        "n_steps": n_steps,
        "config": config_of(scheduler),
        "init_noise_sigma": float(scheduler.init_noise_sigma),
        "timesteps": numbers(scheduler.timesteps),
        "latents": denoised(scheduler, sampler, 0, start * scheduler.init_noise_sigma, noises[:n_noisy]),
    }


def from_picture(sampler, class_name, fields, n_steps, strength, start, noises):
    """One run of img2img: `start` is the noise, the clean latents are a draw of their own."""
    scheduler = scheduler_of(class_name, fields)
    scheduler.set_timesteps(n_steps)
    pipeline = SimpleNamespace(scheduler=scheduler)
    timesteps, n_left = StableDiffusionImg2ImgPipeline.get_timesteps(pipeline, n_steps, strength, "cpu")
    clean = draw(SHAPE, CLEAN_SEED)
    noised = scheduler.add_noise(clean, start, timesteps[:1].repeat(SHAPE[0]))
    return {
        "sampler": sampler,
        "n_steps": n_steps,
        "strength": strength,
        "config": config_of(scheduler),
        "first": n_steps - n_left,
        "noised": numbers(noised),
        "latents": denoised(scheduler, sampler, n_steps - n_left, noised, noises[: n_steps - 1]),
    }


def without_terminal_signal(sampler, own):
    """Fields of the schedules that end without signal, one per prediction that can be drawn so."""
    if sampler == "ddim_full":
        return  # diffusers takes the root of -1e-8 there
    for prediction in ("v_prediction", "sample"):
        if prediction == "sample" and sampler == "euler_ancestral":
            continue  # diffusers does not implement it
        base = {**STABLE_DIFFUSION, **own, "timestep_spacing": "trailing"}
        yield {**base, "prediction_type": prediction, "rescale_betas_zero_snr": True}


def all_trajectories(start, noises):
    for sampler, class_name, own in SAMPLERS:
        for prediction in PREDICTIONS:
            if prediction == "sample" and sampler == "euler_ancestral":
                continue  # diffusers does not implement it
            for spacing in SPACINGS:
                fields = {**STABLE_DIFFUSION, **own, "prediction_type": prediction, "timestep_spacing": spacing}
                yield trajectory(sampler, class_name, fields, 9, start, noises)
        for fields in without_terminal_signal(sampler, own):
            yield trajectory(sampler, class_name, fields, 6, start, noises)
        other = {**own, "num_train_timesteps": 100, "trained_betas": TRAINED_BETAS, "timestep_spacing": "leading"}
        yield trajectory(sampler, class_name, other, 7, start, noises)
        yield trajectory(sampler, class_name, {**own, "beta_schedule": "linear"}, 13, start, noises)
        if class_name in ("DDIMScheduler", "DDPMScheduler"):
            clipped = {**STABLE_DIFFUSION, **own, "timestep_spacing": "trailing"}
            clipped |= {"clip_sample": True, "clip_sample_range": 0.8}
            yield trajectory(sampler, class_name, clipped, 6, start, noises)


def all_noisy_ends(start, noises):
    """DDIM as its pipeline runs it: with noise in the last step, too."""
    for sampler in ("ddim_half", "ddim_full"):
        for prediction, spacing in (("epsilon", "leading"), ("v_prediction", "trailing")):
            fields = {**STABLE_DIFFUSION, **DDIM, "prediction_type": prediction, "timestep_spacing": spacing}
            yield trajectory(sampler, "DDIMScheduler", fields, 9, start, noises, noisy_end=True)


def all_from_pictures(start, noises):
    for sampler, class_name, own in SAMPLERS:
        for strength in STRENGTHS:
            for prediction, spacing in (("epsilon", "leading"), ("v_prediction", "trailing")):
                fields = {**STABLE_DIFFUSION, **own, "prediction_type": prediction, "timestep_spacing": spacing}
                yield from_picture(sampler, class_name, fields, 9, strength, start, noises)
        for fields in without_terminal_signal(sampler, own):
            yield from_picture(sampler, class_name, fields, 6, 1.0, start, noises)


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
        "noisy_ends": list(all_noisy_ends(start, noises)),
        "clean": numbers(draw(SHAPE, CLEAN_SEED)),
        "from_pictures": list(all_from_pictures(start, noises)),
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
    counts = f"{len(content['trajectories'])} trajectories, {len(content['from_pictures'])} from pictures"
    print(f"  {folder.name}/cases.json: {counts}, {path.stat().st_size} bytes")


def text(section):
    """JSON with one line per entry of a list."""
    if isinstance(section, list) and section and isinstance(section[0], (dict, list)):
        return "[\n" + ",\n".join(json.dumps(entry, allow_nan=False) for entry in section) + "\n]"
    return json.dumps(section, allow_nan=False)


if __name__ == "__main__":
    main()
