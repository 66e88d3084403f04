# SPDX-License-Identifier: MIT
"""Reads the training texts, repairs one of them and sets parts aside."""

from pathlib import Path

FILES = ("shakespeare.txt", "kjv.txt", "addresses.txt")
PARTS = 100
HELD_OUT = (33, 77)  # of PARTS equal runs of lines in each file

# Some of the addresses were once read as Big5: quotes and dashes came out as two
# letters.
REPAIRS = {
    "\u00a1\u00a6": "'",
    "\u00a1\u00a7": '"',
    "\u00a1\u00a8": '"',
    "\u00a1@": "",
    "\u00a1K": "...",
    "\u00a1X": " -- ",
    "\u2014": " -- ",
}


def read_text(path: Path) -> str:
    """The text of one file, with its broken punctuation put right."""
    text = path.read_text(encoding="utf-8")
    for broken, right in REPAIRS.items():
        text = text.replace(broken, right)
    return text


def read_corpus(folder: Path) -> tuple[list[list[str]], list[list[str]]]:
    """Training and held-out passages, a list of passages for each file."""
    train, held = [], []
    for name in FILES:
        lines = read_text(folder / name).splitlines(keepends=True)
        cuts = [len(lines) * i // PARTS for i in range(PARTS + 1)]
        held.append(["".join(lines[cuts[i] : cuts[i + 1]]) for i in HELD_OUT])
        edges = [0, *(e for i in HELD_OUT for e in (i, i + 1)), PARTS]
        train.append(
            [
                "".join(lines[cuts[a] : cuts[b]])
                for a, b in zip(edges[::2], edges[1::2], strict=True)
            ]
        )
    return train, held
