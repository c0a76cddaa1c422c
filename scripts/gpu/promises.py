"""The promises of `populate`, on a card. Each function is one part: it fills a `Section`."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy

import programs
import rows as plan
from calls import ROOT, losses, mean, only, records
from programs import Failed

RECIPES = ROOT / "recipes"
# A picture of the card and one of the processor: mean difference of a channel, of 255.
PICTURE_TOLERANCE = 2.0
# Mean relative difference of the losses of equal steps on card and processor.
LOSS_TOLERANCE = 0.05
# The mean loss of the last fifth of a training, as a share of that of the first fifth, at most.
LEARNED_SHARE = 0.75
# An adapter at dose 0 against the base: largest difference of a channel. Kernels may be chosen anew for each process,
# and the last bit of a rounded channel may differ with them.
ZERO_TOLERANCE = 1
# What the same adapter changes at dose 1 at least: else dose 0 would say nothing.
VISIBLE = 10
# A warm first step is slower than a later one by at most this, or takes at most this share of a cold one.
WARM_SECS, WARM_SHARE = 2.0, 0.5
# Memory after many steps, as a share of that after few.
FLAT_SHARE = 1.02
# A tiny recipe on a random base; the pictures and captions of a concept that ships.
RECIPE = """\
name: check
seed: 7
base: {{ sd1: {{ weights: {base} }} }}
dataset: {{ captioned: {{ images: {pictures}, captions: sidecar, side_px: 64 }} }}
adapter: {{ lora: {{ rank: 4, targets: attn_ff }} }}
fit:
  steps: 20
  batch: {{ images: 4, accumulate: 1 }}
  optimizer: {{ adamw: {{ learning_rate: 1.0e-3 }} }}
  schedule: constant
  save_every: 20
  previews: {{ prompts: [""], seeds: [0], sampler: {{ ddim: {{ steps: 2 }} }} }}
"""


def start(world, section):
    """The doctor, and what a second start costs. Empties the cache first."""
    shutil.rmtree(world.populate.cache, ignore_errors=True)
    shown, seconds = [], []
    for _ in range(2):
        output, took = world.populate.run("doctor", "--device", "cuda", "--runs", world.populate.runs("doctor"))
        shown.append(output)
        seconds.append(took)
    section.notes.append(f"```\n{shown[1].strip()}\n```")
    right = all("matrix product is right" in output for output in shown)
    section.promise("the first kernel", "a 4x4 matrix product is right", "right" if right else "wrong", right)
    rows = [["doctor", f"{seconds[0]:.1f}", "", f"{seconds[1]:.1f}", "", ""]]
    names = ["mini-step-8"] if world.quick else ["mini-step-8", "sd15-512-b8"]
    for name in names:
        rows.append(first_step(world, section, plan.BY_NAME[name]))
    head = ["work", "cold: process s", "first step s", "warm: process s", "first step s", "later steps s"]
    section.table("Starts with an empty cache, and again:", head, rows)


def first_step(world, section, row):
    """A row of the table of starts: one step without warm-up, cold and warm; then steps behind a warm-up."""
    once = replace(world.settings, steps=1, warmup=0)
    (cold, cold_secs), (warm, warm_secs) = (world.populate.bench(row, once, world.python) for _ in range(2))
    later, _ = world.populate.bench(row, replace(once, steps=5, warmup=3), world.python)
    first, second, steady = (record["median_s"] for record in (cold, warm, later))
    allowed = max(WARM_SHARE * first, steady + WARM_SECS)
    what, found = f"a second start costs nothing, {row.name}", f"{second:.1f} s, cold {first:.1f} s"
    section.promise(what, f"first step within {allowed:.1f} s", found, second <= allowed)
    return [row.name, f"{cold_secs:.1f}", f"{first:.2f}", f"{warm_secs:.1f}", f"{second:.2f}", f"{steady:.4f}"]


def parity(world, section):
    """Pictures and loss curves of the card beside those of the processor."""
    draw = world.populate.draw
    for name, prompt in (("asked", "a postcard of a lighthouse"), ("unasked", "")):
        words = ["--prompt", prompt, "--seed", "3", "--count", "4", "--steps", "12"]
        both = [draw(f"{name}-{device}", device, *words) for device in ("cuda", "cpu")]
        compare(section, f"four pictures of the embedded base, {name}", *both)
    sets = ("fit.steps=40", "fit.batch={images: 8, accumulate: 1}", "fit.save_every=40")
    curves(world, section, "the embedded base", RECIPES / "smoke.yaml", sets)
    bases = tiny_bases(world, section)
    for family, base in bases.items():
        words = ["--base", base, "--prompt", "a red lighthouse at night", "--seed", "3", "--steps", "8"]
        words += ["--guidance", "3", "--size", "128x64"]
        both = [draw(f"{family}-{device}", device, *words) for device in ("cuda", "cpu")]
        compare(section, f"a picture of a random {family}, in its default precision", *both)
    if "sd1" in bases:
        pictures = ROOT / "datasets" / "concepts" / "hatching"
        recipe = world.populate.folder("recipes") / "check.yaml"
        recipe.write_text(RECIPE.format(base=bases["sd1"], pictures=pictures))
        curves(world, section, "a random sd1, bf16 on the card", recipe, ())


def compare(section, what, card, processor):
    """Two pictures; a mean difference says more than the largest, which one edge can make."""
    if card.shape != processor.shape:
        section.promise(what, f"pictures of shape {processor.shape}", f"{card.shape}", False)
        return
    apart = numpy.abs(card - processor)
    found = f"{apart.mean():.3f} of 255, largest {apart.max()}"
    # Two pictures of one color would agree whatever was computed.
    empty = processor.std() < 1.0
    found += ", but the picture is empty" if empty else ""
    kept = apart.mean() <= PICTURE_TOLERANCE and not empty
    section.promise(what, f"mean within {PICTURE_TOLERANCE:g} of 255", found, kept)


def curves(world, section, what, recipe, sets):
    """The same training on both devices: every draw is the same, so that the losses are, too, but for rounding."""
    name = f"curve-{recipe.stem}"
    card, processor = (
        losses(world.populate.train(f"{name}-{device}", device, recipe, *sets)) for device in ("cuda", "cpu")
    )
    same_length = len(card) == len(processor) > 0
    apart = mean(abs(a - b) / b for a, b in zip(card, processor)) if same_length else float("inf")
    found = f"{100 * apart:.2f} % over {len(card)} steps"
    expected = f"{100 * LOSS_TOLERANCE:g} % apart at most"
    section.promise(f"losses of card and processor, {what}", expected, found, apart <= LOSS_TOLERANCE)


def tiny_bases(world, section):
    """Random pipelines of each family; none where their scripts were not brought along."""
    script = Path(__file__).resolve().parent / "tiny_pipelines.py"
    needed = [ROOT / "scripts" / "golden" / "families.py", ROOT / "scripts" / "interchange" / "vocabulary.py"]
    needed.append(ROOT / "checkpoints" / "data" / "clip-merges.txt")
    absent = [path.relative_to(ROOT) for path in needed if not path.is_file()]
    if absent:
        section.note(f"Random pipelines are left out: {', '.join(map(str, absent))} are not here.")
        return {}
    folder = world.populate.folder("bases")
    output = programs.run([world.python, script, folder], limit_secs=900)
    return {family: folder / family for family in output.split()}


def learns(world, section):
    """A concept is learned, and a census is taken of what that cost."""
    recipe = RECIPES / "le-depeupleur.yaml"
    sets = ("fit.steps=150",) if world.quick else ()
    run = world.populate.train("learns", "cuda", recipe, *sets)
    concept = losses(run, "loss_concept")
    fifth = len(concept) // 5
    first, last = mean(concept[:fifth]), mean(concept[-fifth:])
    found = f"{first:.4f} to {last:.4f} in {len(concept)} steps"
    expected = f"loss at most {LEARNED_SHARE:g} of the first"
    section.promise("a training learns", expected, found, last <= LEARNED_SHARE * first)
    # The whole census of this recipe takes minutes; that of the small one sees that every part works.
    counted = world.populate.train("counted", "cuda", RECIPES / "smoke.yaml") if world.quick else run
    _, seconds = world.populate.run("census", counted, "--device", "cuda")
    page = counted / "report" / "index.html"
    section.promise("a census runs", "a report", f"after {seconds:.0f} s" if page.is_file() else "none", page.is_file())


def resume(world, section):
    """A training that is asked to stop ends with 75 and goes on; every step is measured once."""
    n_steps, stop_at = 200, 70
    sets = (f"fit.steps={n_steps}", "fit.save_every=50")
    runs = world.populate.runs("resume")
    shutil.rmtree(runs)
    arguments = world.populate.training("resume", "cuda", RECIPES / "smoke.yaml", *sets)
    code, reached = world.populate.stopped_at(stop_at, arguments)
    stopped = code == 75 and stop_at <= reached < n_steps
    section.promise("SIGTERM", "exit 75 before the end", f"exit {code} at step {reached} of {n_steps}", stopped)
    world.populate.run(*arguments)
    run = only(runs)
    lines = [record["step"] for record in records(run / "metrics.jsonl")]
    attempts = [record for record in records(run / "attempts.jsonl") if record.get("event") == "start"]
    found = f"{len(lines)} lines of metrics, {len(set(lines))} steps, {len(attempts)} attempts"
    whole = lines == list(range(1, n_steps + 1)) and (run / "adapter.safetensors").is_file()
    section.promise("started again, it finishes", f"{n_steps} lines, each step once", found, whole)


def zero(world, section):
    """Dose 0 is the base."""
    adapters = sorted(world.populate.runs("learns").glob("*/adapter.safetensors"))
    if not adapters:
        raise Failed("there is no adapter: the part `learns` has to run before")
    words = ["--prompt", "a postcard of a sks tower", "--seed", "5", "--count", "4", "--steps", "12"]
    base = world.populate.draw("base", "cuda", *words)
    none, whole = (
        world.populate.draw(f"dose-{dose}", "cuda", *words, "--adapter", f"{adapters[0]}:{dose}") for dose in "01"
    )
    apart, n_other = int(numpy.abs(none - base).max()), int((none != base).sum())
    found = f"largest difference {apart}, {n_other} of {base.size} values"
    section.promise("dose 0 is the base", f"at most {ZERO_TOLERANCE} of 255", found, apart <= ZERO_TOLERANCE)
    seen = int(numpy.abs(whole - base).max())
    section.promise("dose 1 is not", f"at least {VISIBLE} of 255", f"{seen}", seen >= VISIBLE)


def flat(world, section):
    """The memory of the card does not grow with the steps."""
    row = plan.BY_NAME["mini-step-8"]
    counts = (50, 500) if world.quick else (50, 500, 2000)
    taken = {}
    for steps in counts:
        record, _ = world.populate.bench(row, replace(world.settings, steps=steps, warmup=5), world.python)
        taken[steps] = [record.get("peak_device_mib"), record.get("peak_rss_mib")]
    few, many = taken[counts[0]][0], taken[counts[-1]][0]
    kept = few is not None and many is not None and many <= FLAT_SHARE * few
    expected = f"at most {FLAT_SHARE:g} of the {few} MiB after {counts[0]} steps"
    section.promise("memory is flat", expected, f"{many} MiB after {counts[-1]} steps", kept)
    head = ["steps", "card MiB", "resident MiB"]
    section.table("Peak memory of mini-step-8 over its steps:", head, [[steps, *taken[steps]] for steps in counts])


PARTS = {"start": start, "parity": parity, "learns": learns, "resume": resume, "zero": zero, "flat": flat}
