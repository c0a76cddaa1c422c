"""Stable Diffusion XL in miniature, files of the variant fp16: pictures, and one adapter in two forms."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import case_folder  # noqa: E402
from families import SAMPLERS  # noqa: E402
from family_cases import LATENTS, Case  # noqa: E402


def main():
    case = Case("sdxl", case_folder(__file__), 1201)
    for sampler in SAMPLERS:
        case.draw(sampler, sampler)
    # diffusers takes zeros only where no negative prompt is given at all.
    case.draw("euler-no-negative", "euler", negative_prompt=None)
    case.draw("euler-rescale", "euler", guidance_rescale=0.7)
    # diffusers counts from the top left corner and names the vertical distance first.
    case.draw("euler-cropped", "euler", original_size=(200, 300), crops_coords_top_left=(16, 40))
    case.draw_from_picture("euler-from-picture", "euler", 0.6)
    height, width = 8 * LATENTS[2], 8 * LATENTS[3]
    case.counts("no prompt", "euler", "euler", prompt="")
    case.counts("the states of the empty prompt", "euler-no-negative", "euler", negative_prompt="")
    case.counts("width for height", "euler", "euler", original_size=(width, height), target_size=(width, height))
    case.counts("a crop", "euler", "euler", crops_coords_top_left=(16, 0))
    case.counts("a crop along the other axis", "euler", "euler", crops_coords_top_left=(0, 16))
    case.counts("the crop's axes", "euler-cropped", "euler", original_size=(200, 300), crops_coords_top_left=(40, 16))
    case.counts("the last layers of the text encoders", "euler", "euler", clip_skip=-1)
    case.counts("the other prompt for the second encoder", "euler", "euler", prompt_2="a mosaic")
    case.counts("no rescaling of guidance", "euler-rescale", "euler")
    case.counts("Euler's own spacing", "euler", "euler", {"timestep_spacing": "linspace"})
    case.scaling_counts("euler", "euler", 0.18215)
    case.add_adapter(1221, "euler")
    case.save()


if __name__ == "__main__":
    main()
