"""The parts of check.sh, behind its environment: finds out, prints, writes report.md.

    python check.py --populate BINARY --out DIR [--parts A,B] [--quick]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))

import programs  # noqa: E402
import promises  # noqa: E402
import rows as plan  # noqa: E402
import section as sections  # noqa: E402
import tables  # noqa: E402
from calls import ROOT, Populate  # noqa: E402
from programs import Failed, Missing  # noqa: E402

SIDE_BY_SIDE = ROOT / "scripts" / "bench" / "side_by_side"
# Of the measured rate of bf16 matrix products.
SHARE_TARGET = 0.5
TITLES = {
    "start": "Doctor and second start",
    "parity": "Parity of card and processor",
    "learns": "Learning and census",
    "resume": "Resume",
    "zero": "Zero adapter",
    "flat": "Memory over many steps",
    "rates": "What the card can do",
    "side": "Side by side",
}


@dataclass
class World:
    """What all parts work with."""

    populate: Populate
    python: Path
    out: Path
    quick: bool
    settings: plan.Settings

    @property
    def rows(self):
        """The rows of a card."""
        found = [row for row in plan.ROWS if row.home == "cuda"]
        return found[:1] if self.quick else found


def rates(world, section):
    """The rate of matrix products, and what the steps ask for."""
    measured = measured_rates(world)
    sides = [[f"{side} x {side}", f"{rate:.0f}"] for side, rate in measured["matmul"].items()]
    section.table("bf16 matrix products in torch:", ["matrices", "TFLOP/s"], sides)
    asked = []
    for row in world.rows:
        counted = measured["flops"][of(row)]
        asked.append([row.name, f"{counted['forward'] / 1e12:.2f}", f"{counted['step'] / 1e12:.2f}"])
    section.table("Counted on the peer's UNet, without recomputation:", ["row", "forward TFLOP", "step TFLOP"], asked)


def of(row):
    return f"{row.config}:{row.latent}:{row.batch}:{row.rank}"


def measured_rates(world):
    """The record of rates.py; kept, so that the part `side` can use it."""
    kept = world.out / "parts" / "rates.record.json"
    record = json.loads(kept.read_text()) if kept.is_file() else {"flops": {}}
    if any(of(row) not in record["flops"] for row in world.rows):
        command = [world.python, Path(__file__).resolve().parent / "rates.py", "--device", "cuda"]
        command += [word for row in world.rows for word in ("--flops", of(row))]
        record = programs.last_record(programs.run(command))
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(record) + "\n")
    return record


def side(world, section):
    """The rows of a card, their share of its rate, and the memory of a step."""
    report = side_by_side(world, "side_by_side", [], 1 if world.quick else 3)
    results, verdicts = report["results"], []
    for row in world.rows:
        failures = [failure for failure in report["failures"] if failure["row"] == row.name]
        errors = [f"{failure['side']}: {failure['error']}" for failure in failures]
        section.promise(f"{row.name} runs on all sides", "no failure", " / ".join(errors) or "none", not errors)
    measured = measured_rates(world)
    best = max(measured["matmul"].values())
    for row in world.rows:
        of_row = [result for result in results if result["row"] == row.name]
        if not of_row:
            continue
        peer = min(result["peer_s"]["median"] for result in of_row)
        own = of_row[0]["own_s"]["median"]
        flops = measured["flops"][of(row)]["step"]
        shares = [flops / seconds / 1e12 / best for seconds in (own, peer)]
        met = "met" if shares[0] >= SHARE_TARGET else "missed"
        cells = [row.name, f"{peer:.4f}", f"{own:.4f}", f"{peer / own:.2f}", f"{100 * shares[1]:.0f} %"]
        verdicts.append([*cells, f"{100 * shares[0]:.0f} %", f"{met} ({100 * SHARE_TARGET:g} %)"])
    head = ["row", "better peer s", "populate s", "times as fast", "peer's share", "populate's share", "target"]
    section.table(f"Steps against {best:.0f} TFLOP/s of bf16 matrix products:", head, verdicts)
    section.table("Against each way of the peer; seconds, and MiB on the card:", *side_table(results))
    if not world.quick:
        again = side_by_side(world, "side_by_side-recompute", ["--recompute", "--rows", world.rows[0].name], 1)
        section.table("The same with activations computed again:", *side_table(again["results"]))


def side_by_side(world, name, more, repetitions):
    """The record of a call of side_by_side; it prints its own table."""
    path = world.out / f"{name}.json"
    path.unlink(missing_ok=True)
    command = [SIDE_BY_SIDE, "--device", "cuda", "--dtype", "bf16", "--repetitions", repetitions, "--json", path]
    command += ["--populate", world.populate.program, "--python", world.python]
    command += ["--weights", world.populate.folder("weights")]
    if "--rows" not in more:
        command += ["--rows", ",".join(row.name for row in world.rows)]
    words = [sys.executable, *(str(word) for word in (*command, *more))]
    environment = {**os.environ, **world.populate.environment}
    # What it says while it works is for people; its table is in the record.
    child = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
    try:
        code = child.wait()
    finally:
        programs.end(child)
    # It ends with 1 if a side of a row failed; what the others gave stands in its record.
    if code not in (0, 1) or not path.is_file():
        raise Failed(f"side_by_side ended with {code}")
    return json.loads(path.read_text())


def side_table(results):
    def spread(found, digits):
        return tables.Spread(found["median"], found["min"], found["max"]).show(digits)

    head = ["row", "peer", "peer s", "populate s", "ratio", "target", "peer MiB", "populate MiB"]
    rows = []
    for result in results:
        times = [spread(result["peer_s"], 4), spread(result["own_s"], 4), spread(result["ratio"], 2)]
        memory = [tables.mib(result["peer_mib"]), tables.mib(result["own_mib"])]
        rows.append([result["row"], result["peer"], *times, result["time"], *memory])
    return head, rows


PARTS = promises.PARTS | {"rates": rates, "side": side}


def run_part(name, world):
    """One part, and its findings on disk; what breaks it off is a broken promise, too."""
    print(f"\n== {TITLES[name]}", flush=True)
    found, started = sections.Section(TITLES[name]), time.monotonic()
    try:
        PARTS[name](world, found)
    # The other parts are wanted all the same.
    except Exception as error:
        if not isinstance(error, Failed):
            traceback.print_exc()
        found.promise(f"the part `{name}` runs", "to its end", f"{type(error).__name__}: {error}", False)
    found.note(f"This part took {time.monotonic() - started:.0f} s.")
    found.save(world.out / "parts", name)


def environment_of(world):
    """Machine and versions."""
    _, versions = programs.find_python(world.python, True)
    found = programs.machine("cuda", programs.usable_processors())
    found |= {"populate": programs.run([world.populate.program, "--version"]).split()[-1]}
    found |= {name: versions[name] for name in ("python", "torch", "diffusers", "peft", "transformers")}
    return found | {"CUDA_PATH": os.environ.get("CUDA_PATH"), "date": time.strftime("%Y-%m-%d")}


def write_report(world, environment):
    """report.md of everything that DIR holds, the sections in order; the promises that are broken."""
    done = [sections.Section.load(world.out / "parts", name) for name in PARTS]
    done = [found for found in done if found is not None]
    (world.out / "report.md").write_text(sections.markdown(environment, done))
    return [what for found in done for what in found.broken]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--populate", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    chosen = arguments.parts.split(",")
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        parser.error(f"--parts: expected some of {','.join(PARTS)}, found {','.join(unknown)}")
    if programs.card() is None:
        parser.error("nvidia-smi shows no card: install the driver, or make the card visible in the container")
    settings = plan.Settings("cuda", "bf16", programs.usable_processors(), None, None, False)
    scratch = arguments.out / "scratch"
    populate = Populate(arguments.populate, scratch)
    world = World(populate, Path(sys.executable), arguments.out, arguments.quick, settings)
    environment, interrupted = environment_of(world), False
    try:
        for name in chosen:
            run_part(name, world)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        interrupted = True
    broken = write_report(world, environment)
    print(f"\n{arguments.out / 'report.md'}; {scratch} can be removed")
    for what in broken:
        print(f"BROKEN: {what}")
    if interrupted:
        return 130
    return 1 if broken else 0


if __name__ == "__main__":
    # A stop request has to end the program under way, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except Missing as error:
        print(f"check.py: {error}", file=sys.stderr)
        sys.exit(2)
