"""What `side_by_side` compares: the rows, the command lines of both sides, the targets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGETS = "to_q,to_k,to_v,to_out.0"
# Component that a work needs, its flag in `populate bench`, the script of the peer.
UNET, VAE = ("unet", "--unet", "peer_step.py"), ("vae", "--vae", "peer_part.py")
PARTS = {
    "step": UNET,
    "forward": UNET,
    "decode": VAE,
    "encode": VAE,
    "text": ("text_encoder", "--text-encoder", "peer_part.py"),
}
# Bytes of the saved f32 weights, rounded up: what the folder of weights has to hold.
WEIGHT_BYTES = {
    ("mini", "unet"): 30 << 20,
    ("mini", "vae"): 4 << 20,
    ("mini", "text_encoder"): 4 << 20,
    ("sd15", "unet"): 3500 << 20,
    ("sd15", "vae"): 340 << 20,
    ("sd15", "text_encoder"): 500 << 20,
    ("sdxl", "unet"): 10000 << 20,
}


@dataclass(frozen=True)
class Row:
    """One comparison. Ratios are populate's figure over the peer's: less is better."""

    name: str
    work: str
    config: str
    batch: int
    steps: int
    warmup: int
    latent: int | None = None
    rank: int | None = None
    # Ratios that are to be reached: of the median time, of the peak memory.
    time_target: float | None = None
    memory_target: float | None = None
    # Ways in which the peer runs: `eager`, `compiled`.
    peers: tuple[str, ...] = ("eager",)
    # Where the row belongs: `cpu` or `cuda`. Its targets hold only there.
    home: str = "cpu"
    # Whether it runs if no rows are named.
    usual: bool = True

    @property
    def component(self) -> str:
        return PARTS[self.work][0]

    @property
    def computes_unet(self) -> bool:
        return self.component == "unet"


def mini(work, batch, target):
    """Row of the miniature UNet on 16 x 16 latents."""
    rank = 8 if work == "step" else None
    return Row(f"mini-{work}-{batch}", work, "mini", batch, 10, 2, 16, rank, target, 0.6)


CUDA_TARGET = round(1 / 1.2, 3)
BOTH = ("eager", "compiled")
ROWS = [
    mini("step", 8, 0.8),
    mini("step", 32, 0.8),
    mini("forward", 8, 0.8),
    mini("forward", 32, 0.8),
    Row("sd15-step-32", "step", "sd15", 1, 3, 1, 32, 16, 0.9, 0.7),
    Row("sd15-step-64", "step", "sd15", 1, 2, 1, 64, 16, 0.9, 0.7),
    Row("mini-decode", "decode", "mini", 8, 10, 2, 16),
    Row("sd15-decode-32", "decode", "sd15", 1, 2, 1, 32),
    Row("mini-encode", "encode", "mini", 8, 10, 2, 16, usual=False),
    Row("sd15-encode-32", "encode", "sd15", 1, 2, 1, 32, usual=False),
    Row("mini-text", "text", "mini", 8, 10, 2),
    Row("sd15-text", "text", "sd15", 4, 5, 1),
    # Pictures of 512 and 1024 px. The warm-up covers compiling on both sides.
    Row("sd15-512-b8", "step", "sd15", 8, 10, 3, 64, 16, CUDA_TARGET, None, BOTH, "cuda"),
    Row("sdxl-1024-b4", "step", "sdxl", 4, 10, 3, 128, 16, CUDA_TARGET, None, BOTH, "cuda"),
]
BY_NAME = {row.name: row for row in ROWS}


@dataclass(frozen=True)
class Settings:
    """What holds for all rows of one call."""

    device: str
    dtype: str
    threads: int
    steps: int | None
    warmup: int | None
    recompute: bool

    @property
    def on_card(self) -> bool:
        return self.device.startswith("cuda")

    def dtype_of(self, row: Row) -> str:
        """Parts beside the UNet are always computed in f32: so does populate."""
        return self.dtype if row.computes_unet else "f32"

    def repeat(self, row: Row) -> list[str]:
        steps = row.steps if self.steps is None else self.steps
        warmup = row.warmup if self.warmup is None else self.warmup
        return ["--steps", str(steps), "--warmup", str(warmup), "--batch", str(row.batch)]


def peer_command(row: Row, how: str, settings: Settings) -> list[str]:
    """Script and arguments of the peer, for its Python."""
    script = str(HERE / PARTS[row.work][2])
    command = [script] + ([] if row.computes_unet else [row.work])
    command += ["--config", row.config, *settings.repeat(row), "--dtype", settings.dtype_of(row)]
    command += ["--device", settings.device, "--threads", str(settings.threads)]
    command += ["--latent", str(row.latent)] if row.latent else []
    if row.work == "forward":
        command.append("--forward-only")
    elif row.work == "step":
        command += ["--rank", str(row.rank), "--targets", TARGETS]
        command += ["--checkpointing"] if settings.recompute else []
    return command + (["--compile"] if how == "compiled" else [])


def own_command(row: Row, weights: Path, settings: Settings) -> list[str]:
    """Arguments of populate."""
    command = ["bench", row.work, PARTS[row.work][1], str(weights), *settings.repeat(row)]
    command += ["--device", settings.device, "--json"]
    command += ["--latent", str(row.latent)] if row.latent else []
    if row.computes_unet:
        command += ["--dtype", settings.dtype_of(row)]
    if row.work == "step":
        command += ["--rank", str(row.rank), "--targets", TARGETS]
        command += ["--activation-recompute"] if settings.recompute else []
    return command


def save_command(row: Row, folder: Path) -> list[str]:
    """Lets the peer write its weights, with as little other work as it can do.

    The peer's seed is always the same, so that later runs draw the very weights that this one writes.
    """
    command = [str(HERE / PARTS[row.work][2])] + ([] if row.computes_unet else [row.work])
    command += ["--config", row.config, "--device", "cpu", "--batch", "1", "--steps", "1", "--warmup", "0"]
    command += ["--latent", "8", "--forward-only"] if row.computes_unet else []
    if row.component == "vae":
        command += ["--latent", "8"]
    return command + ["--save", str(folder)]
