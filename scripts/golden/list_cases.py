"""Writes CASES.md: every case, what it holds, and the tensors of its case.safetensors."""

import ast
import re
from pathlib import Path

from safetensors import safe_open

GOLDEN = Path(__file__).resolve().parent
NOTES = """\
* `weights.safetensors` has the names that `save_pretrained` writes: `clip_text` without `text_model.`
  (transformers >= 5.6), `clip_text_projection`, `clip_vision` and `clip_joint` with their prefixes.
* `gradients.safetensors` has the parameters' names; LoRA factors there and in `factors.safetensors`,
  `start`, `*.after_*` are `unet.<path>.lora_A.weight` / `lora_B`, or `text_encoder.text_model.<path>...`.
  Those files carry no alpha: it is in `case.safetensors`. `kohya.safetensors` carries it per module.
* `intermediate.<module path>` is the output of that layer in the forward pass (the first of a tuple).
* `full_grad`, `lora_sd1`: `loss` = mean((output - target)^2) on the inputs and weights of `unet_sd1`.
  `lora_sd1`: rank 4, convolutions of 3x3 rank 2, alpha 3 throughout; `output_dosed` at dose 0.5. The same
  adapter as `pytorch_lora_weights` (pipeline), `save_lora_adapter` (model), `adapter_model` +
  `adapter_config.json` (PEFT) and `kohya`; in the first three alpha stands in the metadata or the config.
* A key bias has no influence (softmax ignores a shift), so its gradient in `vae`, `clip_text` and `clip_joint`
  is rounding noise: hold it against the largest gradient of the whole case, not its own.
* `lora_text`: rank 3, alpha 4; inputs, target and weights of `clip_text`.
* `unet_sd1_odd`: weights of `unet_sd1`; `loss` = mean((output - target)^2), `gradient.<parameter>` of three weights;
  `low` has latents of one row, with the same timesteps and text.
* `vae`: `loss` = `mse` + `kl_weight` * `kl`; `kl` is the mean over latent values; `reconstruction` is decoded
  from mean + std * `noise`. `latents`, `mean` and `decoded` are unscaled (no `scaling_factor`).
* `vae_tiled`: weights of `vae`; tiles of `tile_px`, unscaled latents; `low` is less than a tile high.
* `clip_joint`: logits carry exp(logit_scale); `loss` is the mean of the two cross entropies.
* `tokenizer`: row i of `ids.*` belongs to entry i of `captions.json`; length 77. `pad_end`, `pad_exclamation`
  are vocab.json + merges.txt, `*_json` tokenizer.json, with equal ids. In `pad_end` the token
  `<|endoftext|>` counts as not normalized (pad_token is a bare string), in `pad_exclamation` as normalized:
  only there does the text `<|ENDOFTEXT|>` become the token.
* `sdxl_text`: `prompts.json`, tokenizers `pad_end` and `pad_exclamation`; `sd1.skipped_k` leaves the last k layers out
  (ours calls that clip_skip k + 1); `sdxl.*negative*` encodes the empty text too, `sdxl.unconditional` is held against
  zeros. UNet of `unet_sdxl`, one `time_ids` for all; `conditional` has the first prompt for every picture.
* `single_file`: `<family>.safetensors` in the names of ldm and sgm (f16), `<family>.expected` the same tensors as
  `<component>/<diffusers name>`, `sd1.average` those of `model_ema.`; every file went back through diffusers' converters.
* `train_step`: SD schedule, min-SNR `gamma`, LoRA on attention of `unet_sd1`, rank 2; step k uses rows 4k to
  4k+3 as two micro-batches of two; `losses` are step means, `gradient_norms` before clipping; AdamW, torch's
  defaults. `*.first.*` belong to the first micro-batch.
* `pipeline`: `base/` is a diffusers folder (f16), pictures of 48x32 with prompt, negative prompt, 8 steps and
  guidance 3 as in its make.py; `latents` is the start, `latents.<tag>` the end (scaled), `pixels.<tag>` in
  [0, 1], `<tag>.png` the picture. `adapter.safetensors`: kohya names, UNet and text encoder, rank 2, alpha 4.
* `family_*`: the released structures at small widths, f16; pictures of 128x64, 8 steps, guidance 3, prompt and
  negative prompt as in `family_cases.py`. `latents` is the start, `latents.<tag>` the end; `noises` also holds the
  noise of each step and of the encoder's draw. `kohya` and `diffusers` are one adapter (UNet with convolutions, all
  text encoders; f16). Each make.py ends unless every part of what is drawn with moves its picture by 10 of 255.
"""


def tensors(path):
    with safe_open(str(path), "pt") as file:
        for name in sorted(file.keys()):
            part = file.get_slice(name)
            yield name, f"{part.get_dtype()} {list(part.get_shape())}".replace(" [", "[", 1).replace(", ", ",")


def main():
    lines = ["# Golden cases", "", "Made by `list_cases.py`. Shapes are NCHW or [batch, tokens, width].", "", NOTES]
    lines += ["| case | what | files beside it | tensors of case.safetensors |", "|---|---|---|---|"]
    for script in sorted(GOLDEN.glob("*/make.py")):
        folder = script.parent
        if not (folder / "case.safetensors").exists():
            continue
        title = ast.get_docstring(ast.parse(script.read_text()))
        beside = sorted(
            path.name + ("/" if path.is_dir() else "")
            for path in folder.iterdir()
            if path.name not in ("make.py", "case.safetensors", "versions.txt", "__pycache__")
        )
        listed = "; ".join(f"`{name}` {shape}" for name, shape in tensors(folder / "case.safetensors"))
        title = re.sub(r"\s+", " ", title.splitlines()[0])
        lines.append(f"| `{folder.name}` | {title} | {', '.join(beside)} | {listed} |")
    (GOLDEN / "CASES.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
