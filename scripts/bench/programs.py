"""Finds, makes and runs the programs that `side_by_side` compares, and says on which machine."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
OWN_ENVIRONMENT = ROOT / ".peer"
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
NEEDED = ("torch", "diffusers", "peft", "transformers", "accelerate", "safetensors")
# A run that takes longer than this hangs.
LIMIT_SECS = 3600
ASK_VERSIONS = """
import importlib.metadata, json, platform
found = {"python": platform.python_version()}
for name in %r:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found[name] = None
if found["torch"]:
    import torch
    # With what it was built: the libraries of CUDA weigh on memory even where they are not used.
    found["torch"] = torch.__version__
print(json.dumps(found))
"""


class Missing(Exception):
    """Something is not there; the message says what, and how to get it."""


class Failed(Exception):
    """A program that ended otherwise than asked for."""


def run(command, environment=None, limit_secs=LIMIT_SECS):
    """Standard output of a command that has to succeed. It is ended if we are interrupted."""
    command = [str(word) for word in command]
    environment = {**os.environ, **(environment or {})}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        child = subprocess.Popen(command, env=environment, text=True, **pipes)
    except OSError as error:
        raise Failed(f"`{shown(command)}` did not start: {error}") from error
    try:
        output, complaints = child.communicate(timeout=limit_secs)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"`{shown(command)}` did not end within {limit_secs} s") from error
    finally:
        end(child)
    if child.returncode != 0:
        lines = [line.strip() for line in (complaints + output).splitlines() if line.strip()]
        raise Failed(f"`{shown(command)}` ended with {child.returncode}: " + " / ".join(lines[-4:]))
    return output


def end(child):
    """Ends a program that still runs."""
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()


def last_record(output):
    """The last JSON line of an output."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    raise Failed(f"expected a JSON line, found {output[-200:]!r}")


def shown(command):
    return " ".join(shlex.quote(word) for word in command)


def find_populate(given, on_card):
    """The program: the given one, or built from this checkout."""
    if given is None:
        program = build_populate(on_card)
    elif given.is_file():
        program = given.resolve()
    else:
        raise Missing(f"--populate: there is no file `{given}`")
    try:
        run([program, "bench", "--help"], limit_secs=60)
    except Failed as error:
        raise Missing(f"`{program}` has no verb `bench`: build it again from this checkout ({error})") from error
    return program


def build_populate(on_card):
    if shutil.which("cargo") is None:
        raise Missing("`cargo` is not found: install Rust from https://rustup.rs, or give --populate BINARY")
    command = ["cargo", "build", "--release", "--locked", "--bin", "populate"]
    command += ["--features", "cli/cuda"] if on_card else []
    print(f"building: {shown(command)}", file=sys.stderr, flush=True)
    # The messages name the binary wherever the target folder lies; people read standard error.
    command.append("--message-format=json-render-diagnostics")
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode != 0:
        raise Missing("`populate` does not build: see the messages of cargo above")
    for line in built.stdout.splitlines():
        message = json.loads(line) if line.startswith("{") else {}
        if message.get("executable") and message.get("target", {}).get("name") == "populate":
            return Path(message["executable"])
    raise Missing("cargo built no binary `populate`")


def find_python(given, on_card):
    """A Python with everything that the peer needs, and its versions."""
    if given is None:
        python = OWN_ENVIRONMENT / "bin" / "python"
        if not python.exists():
            make_environment(on_card)
    else:
        # Not resolved: an environment is known by the name under which its Python is called.
        python = Path(shutil.which(str(given)) or given).absolute()
        if not python.exists():
            raise Missing(f"--python: there is no `{given}`")
    versions = json.loads(run([python, "-c", ASK_VERSIONS % (NEEDED,)], limit_secs=120))
    absent = [name for name in NEEDED if versions[name] is None]
    if absent:
        raise Missing(f"`{python}` lacks {', '.join(absent)}: {python} -m pip install {' '.join(absent)}")
    return python, versions


def make_environment(on_card):
    """`.peer` in the repository, which git ignores."""
    python, partial = OWN_ENVIRONMENT / "bin" / "python", OWN_ENVIRONMENT / "incomplete"
    print(f"making {OWN_ENVIRONMENT} with {', '.join(NEEDED)}", file=sys.stderr, flush=True)
    index = [] if on_card else ["--index-url", CPU_WHEELS]
    others = [name for name in NEEDED if name != "torch"]
    try:
        OWN_ENVIRONMENT.mkdir(exist_ok=True)
        partial.touch()
        (OWN_ENVIRONMENT / ".gitignore").write_text("*\n")
        run([sys.executable, "-m", "venv", OWN_ENVIRONMENT])
        run([python, "-m", "pip", "install", "--quiet", "torch", *index])
        run([python, "-m", "pip", "install", "--quiet", *others])
        partial.unlink()
    except Failed as error:
        advice = "install python3-venv and pip, look at the network, or give --python PATH"
        raise Missing(f"the peer's environment cannot be made: {error}; {advice}") from error
    finally:
        if partial.exists():
            shutil.rmtree(OWN_ENVIRONMENT, ignore_errors=True)


def machine(device, threads):
    """What the figures depend on beside the programs."""
    processor = next((line.split(":", 1)[1] for line in lines_of("/proc/cpuinfo") if line.startswith("model name")), "")
    memory = next((line.split()[1] for line in lines_of("/proc/meminfo") if line.startswith("MemTotal")), "0")
    found = {
        "processor": processor.strip() or platform.processor() or platform.machine(),
        "processors": usable_processors(),
        "threads": threads,
        "memory_gib": round(int(memory) / 2**20, 1),
        "system": platform.platform(),
        "load_before": os.getloadavg()[0],
    }
    return found | ({"card": card()} if device.startswith("cuda") else {})


def card():
    """Model, memory and driver of the first NVIDIA card; `None` if nobody says."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        return run(query, limit_secs=30).splitlines()[0]
    except (Failed, IndexError):
        return None


def usable_processors():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def lines_of(path):
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def commit():
    """Commit of this checkout; `None` outside of one."""
    try:
        return run(["git", "-C", ROOT, "describe", "--always", "--dirty"], limit_secs=30).strip()
    except Failed:
        return None
