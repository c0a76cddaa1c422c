"""From the lines that both programs printed to the table of `side_by_side`."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Spread:
    """Median and range over the repetitions."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values):
        return cls(median(values), min(values), max(values))

    def show(self, digits):
        return f"{self.median:.{digits}f} [{self.least:.{digits}f}, {self.most:.{digits}f}]"

    def record(self):
        return {"median": self.median, "min": self.least, "max": self.most}


@dataclass(frozen=True)
class Result:
    """A row against one way of the peer."""

    row: object
    how: str
    on_card: bool
    peer: list
    own: list
    targets_hold: bool

    @property
    def name(self):
        return self.row.name if len(self.row.peers) == 1 else f"{self.row.name}, {self.how}"

    def seconds(self, lines):
        return Spread.of([line["median_s"] for line in lines])

    @property
    def ratio(self):
        """Ratio of the medians; its range is that of the ratios of the repetitions."""
        pairs = [own["median_s"] / peer["median_s"] for own, peer in zip(self.own, self.peer)]
        middle = self.seconds(self.own).median / self.seconds(self.peer).median
        return Spread(middle, min(pairs), max(pairs))

    def memory(self, lines):
        """Largest peak over the repetitions in MiB: of the card, else of the process; `None` if not told."""
        key = "peak_device_mib" if self.on_card else "peak_rss_mib"
        return max((line[key] for line in lines if line.get(key) is not None), default=None)

    @property
    def memory_ratio(self):
        peer, own = self.memory(self.peer), self.memory(self.own)
        return own / peer if peer and own is not None else None

    def verdicts(self):
        """What became of the targets, in words."""
        if not self.targets_hold:
            return "", ""
        time, memory = self.row.time_target, self.row.memory_target
        return verdict(self.ratio.median, time), verdict(self.memory_ratio, memory)

    def cells(self):
        time, memory = self.verdicts()
        ratio = "" if self.memory_ratio is None else f"{self.memory_ratio:.2f}"
        return [
            self.name,
            self.seconds(self.peer).show(4),
            self.seconds(self.own).show(4),
            self.ratio.show(2),
            time,
            mib(self.memory(self.peer)),
            mib(self.memory(self.own)),
            ratio,
            memory,
        ]

    def record(self):
        time, memory = self.verdicts()
        return {
            "row": self.row.name,
            "peer": self.how,
            "peer_s": self.seconds(self.peer).record(),
            "own_s": self.seconds(self.own).record(),
            "ratio": self.ratio.record(),
            "time_target": self.row.time_target if self.targets_hold else None,
            "time": time,
            "peer_mib": self.memory(self.peer),
            "own_mib": self.memory(self.own),
            "memory_ratio": self.memory_ratio,
            "memory_target": self.row.memory_target if self.targets_hold else None,
            "memory": memory,
        }


def verdict(found, target):
    if target is None or found is None:
        return ""
    return f"{'met' if found <= target else 'missed'} ({target:g})"


def mib(value):
    return "" if value is None else f"{value:.0f}"


HEAD = ["row", "peer s", "populate s", "ratio", "target", "peer MiB", "populate MiB", "ratio", "target"]


def markdown(head, rows):
    """A table that is readable as it is."""
    widths = [max(len(str(cells[index])) for cells in [head, *rows]) for index in range(len(head))]
    padded = lambda cells: [str(cell).ljust(width) for cell, width in zip(cells, widths)]  # noqa: E731
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join("| " + " | ".join(padded(cells)) + " |" for cells in lines)


def table(results):
    return markdown(HEAD, [result.cells() for result in results])
