"""Compares two pictures pixel by pixel: max and mean |delta| in steps of 1/255.

    python compare_pictures.py A.png B.png [--at-most N]

Exit code 1 when the sizes differ or, with --at-most, when a pixel differs by more.
"""

import argparse
import json
import sys

import numpy
from PIL import Image


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--at-most", type=int, help="largest |delta| allowed, 0 to 255")
    arguments = parser.parse_args()
    first, second = (
        numpy.asarray(Image.open(path).convert("RGB"), dtype=numpy.int16)
        for path in (arguments.first, arguments.second)
    )
    if first.shape != second.shape:
        print(f"sizes differ: {first.shape[1]}x{first.shape[0]} and {second.shape[1]}x{second.shape[0]}")
        return 1
    delta = numpy.abs(first - second)
    worst = int(delta.max())
    print(
        json.dumps(
            {
                "max": worst,
                "mean": round(float(delta.mean()), 6),
                "values_differing": int((delta > 0).sum()),
                "values_differing_by_more_than_1": int((delta > 1).sum()),
                "values": int(delta.size),
            }
        )
    )
    return int(arguments.at_most is not None and worst > arguments.at_most)


if __name__ == "__main__":
    sys.exit(main())
