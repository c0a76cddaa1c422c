"""What a part of the check found, and how it is written down."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import tables


@dataclass
class Section:
    """The findings of one part."""

    title: str
    # Each: what, expected, found, whether it is kept.
    promises: list = field(default_factory=list)
    # Each: caption, head, rows.
    tables: list = field(default_factory=list)
    notes: list = field(default_factory=list)

    def promise(self, what, expected, found, kept):
        self.promises.append([what, expected, found, bool(kept)])
        print(f"{'kept  ' if kept else 'BROKEN'} {what}: {found}; expected {expected}", flush=True)

    def table(self, caption, head, rows):
        self.tables.append([caption, head, [[str(cell) for cell in row] for row in rows]])
        print(f"\n{caption}\n{tables.markdown(head, self.tables[-1][2])}\n", flush=True)

    def note(self, text):
        self.notes.append(text)
        print(text, flush=True)

    @property
    def broken(self):
        return [what for what, _, _, kept in self.promises if not kept]

    def save(self, folder, name):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, folder, name):
        """What an earlier call found; `None` if it did not run."""
        path = Path(folder) / f"{name}.json"
        return cls(**json.loads(path.read_text())) if path.is_file() else None


def markdown(machine, sections):
    """The report of all parts that have run."""
    promises = [promise for section in sections for promise in section.promises]
    n_kept = sum(kept for *_, kept in promises)
    lines = ["# GPU check", ""]
    lines += [f"* {name}: {value}" for name, value in machine.items()]
    lines += ["", f"## Promises: {n_kept} of {len(promises)} kept", ""]
    rows = [[what, expected, found, "kept" if kept else "**broken**"] for what, expected, found, kept in promises]
    lines += [tables.markdown(["promise", "expected", "found", ""], rows), ""]
    for section in sections:
        if section.tables or section.notes:
            lines += [f"## {section.title}", ""]
        for caption, head, rows in section.tables:
            lines += [caption, "", tables.markdown(head, rows), ""]
        lines += [note + "\n" for note in section.notes]
    return "\n".join(lines)
