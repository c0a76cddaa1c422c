"""Calls `populate` for the checks of a card, and reads what it left."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy
from PIL import Image

import programs
import rows as plan
from programs import Failed

ROOT = Path(__file__).resolve().parent.parent.parent
# A request to stop has to be answered within this.
STOP_SECS = 180


class Populate:
    """The program, and the folder in which everything lies that is made on the way."""

    def __init__(self, program, scratch):
        self.program, self.scratch = str(program), scratch
        # Kernels and tuning results of the program, compiled kernels of the driver: what makes a start cold or warm.
        self.cache = scratch / "cache"
        self.environment = {
            "XDG_CACHE_HOME": str(self.cache),
            "CUDA_CACHE_PATH": str(self.cache / "driver"),
            "CUDA_CACHE_MAXSIZE": str(4 << 30),
        }

    def run(self, *arguments):
        """Runs a verb to its end; standard output and seconds."""
        started = time.monotonic()
        output = programs.run([self.program, *arguments], self.environment)
        return output, time.monotonic() - started

    def draw(self, name, device, *arguments):
        """The picture or sheet as integers `[height, width, 3]`."""
        out = self.folder("pictures") / f"{name}.png"
        self.run("generate", "--device", device, "--out", out, *arguments)
        with Image.open(out) as picture:
            return numpy.asarray(picture.convert("RGB"), dtype=int)

    def train(self, name, device, recipe, *sets):
        """Trains from the beginning; the run directory."""
        runs = self.runs(name)
        for old in runs.iterdir():
            shutil.rmtree(old)
        self.run(*self.training(name, device, recipe, *sets))
        return only(runs)

    def training(self, name, device, recipe, *sets):
        words = ["train", recipe, "--device", device, "--runs", self.runs(name), "--json"]
        return words + [word for value in sets for word in ("--set", value)]

    def stopped_at(self, step, arguments):
        """Starts a training and asks it to stop at a step; the exit code, and the step it reached."""
        command = [str(word) for word in (self.program, *arguments)]
        environment = {**os.environ, **self.environment}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        child = subprocess.Popen(command, env=environment, text=True, **pipes)
        # Reading its lines would wait for ever for a program that does not hear.
        patience = threading.Timer(STOP_SECS, child.kill)
        reached = 0
        try:
            for line in child.stdout:
                record = json.loads(line)
                if record.get("event") != "progress" or record.get("phase") != "train":
                    continue
                if reached < step <= record["done"]:
                    child.send_signal(signal.SIGTERM)
                    patience.start()
                reached = record["done"]
            return child.wait(timeout=STOP_SECS), reached
        finally:
            patience.cancel()
            child.kill()
            child.wait()

    def bench(self, row, settings, python):
        """The figures of a row of `side_by_side`, and the seconds of the whole process."""
        weights = self.weights(row, python)
        output, seconds = self.run(*plan.own_command(row, weights, settings))
        return programs.last_record(output), seconds

    def weights(self, row, python):
        """The weights that the peer writes; `side_by_side` finds them again."""
        folder = self.folder("weights") / f"{row.config}-{row.component}"
        if not folder.is_dir():
            partial = folder.with_suffix(".partial")
            programs.run([python, *plan.save_command(row, partial)])
            partial.rename(folder)
        return folder

    def folder(self, name):
        path = self.scratch / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def runs(self, name):
        return self.folder(f"runs-{name}")


def only(folder):
    """The only run in a folder of runs."""
    found = [path for path in folder.iterdir() if path.is_dir()]
    if len(found) != 1:
        raise Failed(f"expected one run in `{folder}`, found {len(found)}")
    return found[0]


def records(path):
    """The lines of a journal of a run."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def losses(run, key="loss"):
    """A figure of every step, in order."""
    by_step = {record["step"]: record[key] for record in records(run / "metrics.jsonl")}
    return [by_step[step] for step in sorted(by_step)]


def mean(values):
    values = list(values)
    return sum(values) / len(values)
