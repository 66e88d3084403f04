# SPDX-License-Identifier: MIT
"""``python -m zmlx.bench.report CAPSULE.json...``: the table of repro capsules."""

import argparse
import sys

from zmlx import _core
from zmlx.cli import run


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="zmlx.bench.report", description="Print the table of repro capsules."
    )
    parser.add_argument("capsules", nargs="+", metavar="CAPSULE.json")
    for path in parser.parse_args(argv).capsules:
        try:
            print(_core.report_text(path), end="")
        except _core.FileError as error:
            print(f"zmlx: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
