"""populate and diffusers on the same models, adapters and noise, for SD 1.x, SD 2.x and SDXL.

    python check_interchange.py --populate target/release/populate [--families sd1,sd2,sdxl] [--keep FOLDER]

Makes a small random pipeline of each family with diffusers and compares the pictures that both draw: from the folder
with each sampler, with adapters that PEFT made, saved by diffusers and under kohya's names, and with adapters that
populate trained, converted and merged, which diffusers has to load without a word. A single file under the names of
ldm or sgm has to draw what its folder draws. A picture agrees if no value of it differs by more than 2 of 255.
Prints a table; exit code 1 if anything disagrees.
"""

import argparse
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

sys.dont_write_bytecode = True
sys.path[:0] = [str(Path(__file__).resolve().parent / name) for name in ("golden", "interchange")]
warnings.filterwarnings("ignore", category=FutureWarning)

import numpy  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

import adapters  # noqa: E402
import families  # noqa: E402
import readers  # noqa: E402
import single_file  # noqa: E402
import vocabulary  # noqa: E402
from common import draw  # noqa: E402
from program import Failed, Populate, pixels  # noqa: E402

TOLERANCE = 2
# What an adapter, or half of one, has to change at least: else the comparison would say nothing.
VISIBLE = 10
DOSES = (1.0, 0.5)
OWN_SAMPLER = {"sd1": "ddim", "sd2": "ddim", "sdxl": "euler"}
# What a single file does not say.
UNSAID = {"sd1": (), "sd2": ("--prediction", "v"), "sdxl": ()}
RECIPE = """\
name: check
seed: 7
base: {{ {family}: {{ weights: {base} }} }}
dataset: {{ captioned: {{ images: pictures, captions: sidecar, side_px: 64 }} }}
adapter:
  lora: {{ rank: 2, alpha: 3.0, conv_rank: 1, conv_alpha: 2.0, targets: [{targets}] }}
fit:
  steps: 3
  batch: {{ images: 2, accumulate: 1 }}
  optimizer: {{ adamw: {{ learning_rate: 0.05 }} }}
  schedule: constant
  save_every: 3
  previews: {{ prompts: [""], seeds: [0], sampler: {{ ddim: {{ steps: 2 }} }} }}
output: {{ formats: [kohya, diffusers] }}
"""
TARGETS = ["unet.down_blocks.**", "unet.mid_block.**", "unet.up_blocks.**", "text_encoder.**.layers.**"]


@dataclass(frozen=True)
class Drawing:
    """What both programs are asked for."""

    sampler: str
    latents_file: Path
    latents: torch.Tensor
    prompt: str = "a red lighthouse at night, ink hatching!"
    negative: str = "a mosaic"
    steps: int = 8
    guidance: float = 3.0

    @property
    def size(self):
        _, _, height, width = self.latents.shape
        return f"{width * families.VAE_FACTOR}x{height * families.VAE_FACTOR}"


class World:
    """One family: its pipeline on disk, in memory, and the results so far."""

    def __init__(self, family, folder, program):
        self.family, self.folder = family, folder
        self.populate = Populate(program, folder)
        self.base, self.base_f32 = folder / "base", folder / "base-f32"
        self.rows = []
        folders = vocabulary.of_family(family, folder / "tokenizers")
        built = families.build(family, families.USUAL, 3001 + 100 * families.FAMILIES.index(family), folders)
        vocabulary.check(built.tokenizer)
        families.save_base(family, built, self.base, folders, "8MB")
        built.save_pretrained(self.base_f32)
        single_file.write(family, built, folder / "single.safetensors")
        latents = draw((1, 4, 8, 16), 3011, 0.2)
        save_file({"latents": latents}, str(folder / "latents.safetensors"))
        self.drawing = Drawing(OWN_SAMPLER[family], folder / "latents.safetensors", latents)

    def diffusers(self, drawing, adapter=None, dose=1.0, base=None):
        """The picture that diffusers draws."""
        base = base or self.base
        pipeline = families.load(self.family, base)
        if adapter is not None:
            readers.attach(pipeline, adapter, dose)
        families.set_sampler(pipeline, base, drawing.sampler)
        # SDXL holds guidance against zeros only if no negative prompt is given.
        negative = drawing.negative or (None if self.family == "sdxl" else "")
        _, picture = families.draw_picture(
            pipeline,
            drawing.latents,
            prompt=drawing.prompt,
            negative_prompt=negative,
            guidance_scale=drawing.guidance,
            num_inference_steps=drawing.steps,
        )
        return pixels(picture)

    def diffusers_single(self, path):
        """The picture that diffusers draws from a single file."""
        pipeline = families.load_single(self.family, path, self.base_f32)
        families.set_sampler(pipeline, self.base, self.drawing.sampler)
        asked = {"prompt": self.drawing.prompt, "negative_prompt": self.drawing.negative}
        return pixels(families.draw_picture(pipeline, self.drawing.latents, **asked)[1])

    def check(self, what, first, second, allowed=TOLERANCE):
        """One row of the table: two pictures, each the result of a call."""
        started = time.monotonic()
        try:
            found, expected = first(), second()
            apart = int(numpy.abs(found - expected).max()) if found.shape == expected.shape else 255
            verdict, words = apart <= allowed, f"{apart} of 255, at most {allowed}"
        # diffusers has many ways to fail on a folder that populate wrote; the other rows are wanted all the same.
        except Exception as error:
            verdict, words = False, in_one_line(error)
        self.tell(what, verdict, words, time.monotonic() - started)

    def tell(self, what, verdict, words, seconds):
        self.rows.append((self.family, what, words, verdict))
        print(f"{self.family:<5} {'ok   ' if verdict else 'WRONG'} {what}: {words} ({seconds:.1f} s)", flush=True)

    def visible(self, what, first, second):
        """A row that asks for a difference."""
        try:
            apart = int(numpy.abs(first() - second()).max())
            verdict, words = apart >= VISIBLE, f"{apart} of 255, at least {VISIBLE}"
        except Exception as error:
            verdict, words = False, in_one_line(error)
        self.tell(what, verdict, words, 0.0)


def in_one_line(error):
    return f"{type(error).__name__}: " + " / ".join(str(error).split("\n"))


def check_bases(world):
    """The folder with each sampler and without negative prompt; the single file."""
    populate, drawing = world.populate, world.drawing
    for sampler in families.SAMPLERS:
        asked = replace(drawing, sampler=sampler)
        world.check(f"folder, {sampler}", lambda: populate.draw(world.base, asked), lambda: world.diffusers(asked))
    asked = replace(drawing, negative="")
    world.check("folder, no negative", lambda: populate.draw(world.base, asked), lambda: world.diffusers(asked))
    single, more = world.folder / "single.safetensors", UNSAID[world.family]
    world.check(
        "single file, in diffusers",
        lambda: world.diffusers_single(single),
        lambda: world.diffusers(drawing),
    )
    world.check(
        "single file = folder",
        lambda: populate.draw(single, drawing, more=more),
        lambda: populate.draw(world.base, drawing),
        allowed=0,
    )


def check_foreign_adapters(world):
    """Adapters that PEFT made: in populate, converted and merged by it."""
    populate, drawing = world.populate, world.drawing
    parts = adapters.attach(families.load(world.family, world.base), 3021)
    kohya, diffusers = world.folder / "kohya.safetensors", world.folder / "diffusers.safetensors"
    adapters.save_with_kohya_names(world.family, parts, kohya)
    adapters.save_with_diffusers(families.load(world.family, world.base), parts, diffusers)
    expected = {dose: world.diffusers(drawing, diffusers, dose) for dose in DOSES}
    world.visible("an adapter is seen", lambda: expected[1.0], lambda: world.diffusers(drawing))
    world.visible("its dose is seen", lambda: expected[1.0], lambda: expected[0.5])
    for path in (diffusers, kohya):
        for dose in DOSES:
            drawn = lambda path=path, dose=dose: populate.draw(world.base, drawing, [(path, dose)])  # noqa: E731
            world.check(f"PEFT's adapter, {path.stem} form, dose {dose}", drawn, lambda dose=dose: expected[dose])
    for source, form in ((kohya, "diffusers"), (diffusers, "kohya")):
        converted = world.folder / f"converted-to-{form}.safetensors"

        def drawn(source=source, form=form, converted=converted):
            # In half precision the scale, which diffusers' form carries in its factors, would be rounded in.
            exact = ("--dtype", "f32", "--base", world.base)
            populate.run("convert", source, "--to", form, *exact, "--out", converted)
            return world.diffusers(drawing, converted)

        world.check(f"converted to {form}, in diffusers", drawn, lambda: expected[1.0])
    merged, single = world.folder / "merged", world.folder / "single.safetensors"
    unfolded, one = world.folder / "merged-of-file", world.folder / "merged.safetensors"
    merge = ["merge", "--adapter", f"{kohya}:0.5", "--dtype", "f32"]

    def draw_merged():
        populate.run(*merge, "--base", world.base, "--out", merged)
        return world.diffusers(drawing, base=merged)

    def draw_unfolded():
        populate.run(*merge, "--base", single, *UNSAID[world.family], "--out", unfolded)
        return world.diffusers(drawing, base=unfolded)

    def draw_file():
        populate.run(*merge, "--base", single, "--out", one)
        return world.diffusers_single(one)

    world.check("merged folder, in diffusers", draw_merged, lambda: expected[0.5])
    world.check("merged folder, in populate", lambda: populate.draw(merged, drawing), lambda: expected[0.5])
    world.check("merged file as a folder, in diffusers", draw_unfolded, lambda: expected[0.5])
    world.check("merged file, in diffusers", draw_file, lambda: expected[0.5])


def check_own_adapters(world):
    """Adapters that populate trained, in both of its files: diffusers has to load them and to draw the same."""
    populate, drawing = world.populate, world.drawing
    pictures = world.folder / "pictures"
    pictures.mkdir()
    for number in range(3):
        values = (torch.rand(8, 8, 3, generator=torch.Generator().manual_seed(number)) * 255).byte()
        Image.fromarray(values.numpy()).resize((64, 64)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text("a red tower at night, ink hatching\n")
    targets = TARGETS + (["text_encoder_2.**.layers.**"] if world.family == "sdxl" else [])
    recipe = world.folder / "check.yaml"
    recipe.write_text(RECIPE.format(family=world.family, base=world.base, targets=", ".join(targets)))
    try:
        populate.run("train", recipe, "--device", "cpu", "--runs", world.folder / "runs")
    except Failed as error:
        world.tell("training", False, in_one_line(error), 0.0)
        return
    (run,) = (world.folder / "runs").iterdir()
    for name in ("adapter.safetensors", "pytorch_lora_weights.safetensors"):
        for dose in DOSES:
            world.check(
                f"populate's {name}, dose {dose}",
                lambda name=name, dose=dose: populate.draw(world.base, drawing, [(run / name, dose)]),
                lambda name=name, dose=dose: world.diffusers(drawing, run / name, dose),
            )
    trained = lambda: world.diffusers(drawing, run / "adapter.safetensors")  # noqa: E731
    world.visible("populate's adapter is seen", trained, lambda: world.diffusers(drawing))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--populate", required=True, type=Path, help="the program")
    parser.add_argument("--families", default=",".join(families.FAMILIES))
    parser.add_argument("--keep", type=Path, help="a new folder for all files, which then stay")
    arguments = parser.parse_args()
    if not arguments.populate.is_file():
        parser.error(f"--populate: there is no file {arguments.populate}")
    unknown = set(arguments.families.split(",")) - set(families.FAMILIES)
    if unknown:
        parser.error(f"--families: expected some of {','.join(families.FAMILIES)}, found {','.join(unknown)}")
    program, rows = arguments.populate.resolve(), []
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.keep.resolve() if arguments.keep else Path(scratch)
        for family in arguments.families.split(","):
            folder = root / family
            folder.mkdir(parents=True)
            world = World(family, folder, program)
            check_bases(world)
            check_foreign_adapters(world)
            check_own_adapters(world)
            rows += world.rows
    width = max(len(what) for _, what, _, _ in rows)
    print("\n| family | " + "what".ljust(width) + " | result |\n|---|---|---|")
    for family, what, words, verdict in rows:
        print(f"| {family:<6} | {what.ljust(width)} | {'' if verdict else 'WRONG: '}{words} |")
    wrong = [row for row in rows if not row[3]]
    print(f"\n{len(rows) - len(wrong)} of {len(rows)} agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
