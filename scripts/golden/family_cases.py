"""What the cases of the families share: base, pictures, the adapter in both forms, and proof that every part counts."""

import numpy
import torch
from PIL import Image

import adapters
import families
from common import draw, save_case, save_tensors
from families import MINIATURE, draw_picture, load, set_sampler

PROMPT, NEGATIVE = "a red lighthouse at night, ink hatching!", "a mosaic"
LATENTS = (1, 4, 8, 16)
LATENTS_SCALE = 0.2
STEPS = 8
DOSE = 0.5
# A difference that no rounding makes, in steps of 1/255.
VISIBLE = 10


class Case:
    """One folder under way: pictures are drawn from what was written, not from what was built."""

    def __init__(self, family, folder, seed):
        self.family, self.folder = family, folder
        tokenizers = families.tokenizer_folders(family)
        built = families.build(family, MINIATURE, seed, tokenizers)
        families.save_base(family, built, folder / "base", tokenizers)
        self.pipeline = load(family, folder / "base")
        self.latents = draw(LATENTS, seed + 11, LATENTS_SCALE)
        save_tensors(folder / "latents.safetensors", {"latents": self.latents})
        self.noise, self.posterior = draw((STEPS, *LATENTS), seed + 12), draw(LATENTS, seed + 13)
        self.tensors = {"latents": self.latents}
        self.pictures = {}

    def draw(self, tag, sampler, changes=None, **options):
        """Draws, keeps the latents at the end and writes the picture."""
        self.keep(tag, *self.drawn(sampler, changes, **options))

    def draw_with_noise(self, tag, sampler, **options):
        """The same with noise at each step."""
        self.save_noises()
        self.draw(tag, sampler, noises=self.noise, **options)

    def draw_from_picture(self, tag, sampler, strength):
        """Draws from the picture `ddim.png`: encoded with the noise of its own, then noised with the latents."""
        self.save_noises()
        pipeline = families.from_pictures(self.family, self.pipeline)
        image = Image.open(self.folder / "ddim.png")
        options = {"image": image, "strength": strength, "noises": [self.posterior, self.latents]}
        self.keep(tag, *self.drawn_by(pipeline, sampler, **options))
        self.differs("another picture to begin with", self.pictures[tag], self.pictures["ddim"])

    def save_noises(self):
        """As `populate generate --init-latents` reads them: start, noise of the steps, noise of the encoder's draw."""
        noises = {"latents": self.latents, "noise": self.noise, "posterior": self.posterior}
        save_tensors(self.folder / "noises.safetensors", noises)

    def keep(self, tag, latents, picture):
        self.tensors[f"latents.{tag}"] = latents
        self.pictures[tag] = numpy.asarray(picture, dtype=int)
        picture.save(self.folder / f"{tag}.png")
        clipped = ((self.pictures[tag] == 0) | (self.pictures[tag] == 255)).mean()
        print(f"  {self.folder.name}/{tag}: max|latent| {latents.abs().max():.2f}, clipped {clipped:.3f}")

    def drawn(self, sampler, changes=None, **options):
        return self.drawn_by(self.pipeline, sampler, changes, **options)

    def drawn_by(self, pipeline, sampler, changes=None, **options):
        set_sampler(pipeline, self.folder / "base", sampler, **changes or {})
        return draw_picture(pipeline, self.latents, **{"prompt": PROMPT, "negative_prompt": NEGATIVE} | options)

    def counts(self, what, tag, sampler, changes=None, **options):
        """Ends unless the picture `tag` would be visibly another with this mistake."""
        other = numpy.asarray(self.drawn(sampler, changes, **options)[1], dtype=int)
        self.differs(what, self.pictures[tag], other)

    def differs(self, what, first, second):
        largest = numpy.abs(first - second).max()
        print(f"  {self.folder.name}: {what}: {largest} of 255")
        if largest < VISIBLE:
            raise SystemExit(f"{self.folder}: {what} changes no pixel by {VISIBLE}, only by {largest}")

    def scaling_counts(self, tag, sampler, wrong, **options):
        """Ends unless decoding with another scaling factor is seen."""
        right = self.pipeline.vae.config.scaling_factor
        self.pipeline.vae.register_to_config(scaling_factor=wrong)
        self.counts(f"a scaling factor of {wrong}", tag, sampler, **options)
        self.pipeline.vae.register_to_config(scaling_factor=right)

    def add_adapter(self, seed, sampler, text_spelling=lambda state: state, **options):
        """Writes one adapter in both forms and draws with it at two doses."""
        made = load(self.family, self.folder / "base")
        parts = adapters.attach(made, seed)
        adapters.save_with_diffusers(self.pipeline, parts, self.folder / "diffusers.safetensors", text_spelling)
        adapters.save_with_kohya_names(self.family, parts, self.folder / "kohya.safetensors")
        expected = self.drawn_by(made, sampler, **options)[0]
        for form in ("kohya", "diffusers"):
            self.pipeline.load_lora_weights(
                str(self.folder), weight_name=f"{form}.safetensors", adapter_name="adapter"
            )
            self.pipeline.to(torch.float32)
            apart = (self.drawn(sampler, **options)[0] - expected).abs().max().item()
            print(f"  {self.folder.name}: the adapter read from {form}.safetensors is {apart:.1e} apart")
            if apart > 1e-4 * expected.abs().max():
                raise SystemExit(f"{self.folder}: diffusers reads {form}.safetensors otherwise than it was meant")
            if form == "kohya":
                self.pipeline.unload_lora_weights()
        self.draw(f"{sampler}-adapter", sampler, **options)
        n_modules = {name: len(adapters.factors(part)) // 2 for name, part in parts.items()}
        print(f"  {self.folder.name}: adapted modules {n_modules}")
        for left_out in parts:
            weights = {name: 0.0 if name == left_out else 1.0 for name in parts}
            self.pipeline.set_adapters(["adapter"], [weights])
            self.counts(f"no adapter on {left_out}", f"{sampler}-adapter", sampler, **options)
        self.pipeline.set_adapters(["adapter"], [DOSE])
        self.draw(f"{sampler}-adapter-half", sampler, **options)
        self.pipeline.unload_lora_weights()
        full, half = self.pictures[f"{sampler}-adapter"], self.pictures[f"{sampler}-adapter-half"]
        self.differs("half the dose", full, half)
        self.differs("no dose", half, self.pictures[sampler])

    def save(self):
        save_case(self.folder, self.tensors)
        families.check_sizes(self.folder)
