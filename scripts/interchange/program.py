"""Calls `populate` and looks at what it made."""

import subprocess

import numpy
from PIL import Image

SAMPLERS = {"ddim": "ddim", "euler": "euler", "dpmpp": "dpmpp-2m", "dpmpp-karras": "dpmpp-2m-karras"}


class Failed(Exception):
    """A command that ended otherwise than asked for."""


class Populate:
    """The program, and the folder in which it works."""

    def __init__(self, program, folder):
        self.program, self.folder, self.count = str(program), folder, 0

    def run(self, *arguments):
        """Runs a verb; standard output."""
        command = [self.program, *(str(argument) for argument in arguments)]
        ended = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            lines = [line for line in (ended.stderr + ended.stdout).splitlines() if line.strip()]
            raise Failed(f"populate {arguments[0]} ended with {ended.returncode}: " + " / ".join(lines[-3:]))
        return ended.stdout

    def draw(self, base, drawing, adapters=(), more=()):
        """The picture as integers [height, width, 3]."""
        self.count += 1
        out = self.folder / f"drawn-{self.count}.png"
        arguments = ["generate", "--device", "cpu", "--base", base, "--out", out]
        arguments += ["--sampler", SAMPLERS[drawing.sampler], "--prompt", drawing.prompt, "--steps", drawing.steps]
        arguments += ["--guidance", drawing.guidance, "--size", drawing.size, "--init-latents", drawing.latents_file]
        if drawing.negative:
            arguments += ["--negative", drawing.negative]
        for path, dose in adapters:
            arguments += ["--adapter", f"{path}:{dose}"]
        self.run(*arguments, *more)
        return pixels(Image.open(out))


def pixels(picture):
    return numpy.asarray(picture.convert("RGB"), dtype=int)
