"""Writes small random pipelines into FOLDER, one of each family, as check_interchange.py does, and prints their names.

    python tiny_pipelines.py FOLDER
"""

import sys
import warnings
from pathlib import Path

sys.dont_write_bytecode = True
SCRIPTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(SCRIPTS / name) for name in ("golden", "interchange")]
warnings.filterwarnings("ignore", category=FutureWarning)

import families  # noqa: E402
import vocabulary  # noqa: E402


def main():
    folder = Path(sys.argv[1])
    for number, family in enumerate(families.FAMILIES):
        base = folder / family
        if not (base / "model_index.json").is_file():
            tokenizers = folder / f"{family}-tokenizers"
            made = list(tokenizers.iterdir()) if tokenizers.is_dir() else vocabulary.of_family(family, tokenizers)
            built = families.build(family, families.USUAL, 3001 + 100 * number, sorted(made))
            families.save_base(family, built, base, sorted(made), "8MB")
        print(family, flush=True)


if __name__ == "__main__":
    main()
