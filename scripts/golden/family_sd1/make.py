"""Stable Diffusion 1.x in miniature, in the folder of the first releases: pictures, and one adapter in two forms."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from adapters import training_script_spelling  # noqa: E402
from common import case_folder  # noqa: E402
from families import SAMPLERS, inner_text_model  # noqa: E402
from family_cases import NEGATIVE, Case  # noqa: E402


def skipped_states(pipeline):
    """The negative prompt's states from the last layer but one."""
    with inner_text_model(pipeline.text_encoder):
        return pipeline.encode_prompt(NEGATIVE, "cpu", 1, False, clip_skip=1)[0]


def main():
    case = Case("sd1", case_folder(__file__), 1001)
    for sampler in SAMPLERS:
        case.draw(sampler, sampler)
    # diffusers counts the layers that are left out, other programs count from 1 as the last; and it leaves them out
    # for the prompt alone, others for the negative prompt, too.
    skipping = {"clip_skip": 1, "negative_prompt": None, "negative_prompt_embeds": skipped_states(case.pipeline)}
    case.draw("ddim-clip-skip-2", "ddim", **skipping)
    case.draw("ddim-no-negative", "ddim", negative_prompt="")
    case.draw("ddim-rescale", "ddim", guidance_rescale=0.7)
    case.draw_with_noise("ddim-eta", "ddim", eta=0.5)
    case.draw_with_noise("ddpm", "ddpm")
    case.draw_with_noise("euler-a", "euler-a")
    for sampler in ("ddim", "euler", "dpmpp"):
        case.draw_from_picture(f"{sampler}-from-picture", sampler, 0.6)
    case.counts("no prompt", "ddim", "ddim", prompt="")
    case.counts("no negative prompt", "ddim", "ddim", negative_prompt="")
    case.counts("no guidance", "ddim", "ddim", guidance_scale=1.0)
    case.counts("no rescaling of guidance", "ddim-rescale", "ddim")
    case.counts("the last layer of the text encoder", "ddim-clip-skip-2", "ddim")
    case.counts("DDIM's spacing for DPM++", "dpmpp", "dpmpp", {"timestep_spacing": "leading"})
    case.counts("no offset of the steps", "ddim", "ddim", {"steps_offset": 0})
    case.counts("v prediction", "ddim", "ddim", {"prediction_type": "v_prediction"})
    case.scaling_counts("ddim", "ddim", 0.13025)
    case.add_adapter(1021, "ddim", training_script_spelling)
    case.save()


if __name__ == "__main__":
    main()
