"""Stable Diffusion 2.x in miniature, v prediction, UNet in shards: pictures, and one adapter in two forms."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import case_folder  # noqa: E402
from families import SAMPLERS  # noqa: E402
from family_cases import Case  # noqa: E402

# What a base model without v prediction, and one that was trained down to no signal at all, say in their scheduler.
EPSILON = {"prediction_type": "epsilon"}
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


def main():
    case = Case("sd2", case_folder(__file__), 1101)
    for sampler in SAMPLERS:
        case.draw(sampler, sampler)
    case.draw("ddim-epsilon", "ddim", EPSILON)
    case.draw("ddim-zero-snr", "ddim", ZERO_SNR, guidance_rescale=0.7)
    case.counts("no prompt", "ddim", "ddim", prompt="")
    case.counts("no negative prompt", "ddim", "ddim", negative_prompt="")
    case.counts("epsilon prediction", "ddim", "ddim", EPSILON)
    case.counts("a signal at the end of the noise", "ddim-zero-snr", "ddim", {"timestep_spacing": "trailing"})
    case.counts("no rescaling of guidance", "ddim-zero-snr", "ddim", ZERO_SNR)
    case.scaling_counts("ddim", "ddim", 0.13025)
    case.add_adapter(1121, "ddim")
    case.save()


if __name__ == "__main__":
    main()
