# SPDX-License-Identifier: MIT
"""The ten prompts that judge a demo model, and what counts as a loop."""

from collections import Counter

PROMPTS = (
    "ROMEO:\n",
    "KING HENRY VI:\n",
    "First Citizen:\n",
    "In the beginning",
    "And it came to pass",
    "The LORD is my",
    "Fellow citizens",
    "We the people",
    "My friends,",
    "The state of the Union",
)
NEW_TOKENS = 200


def loop_in(tokens: list[int], text: str) -> str:
    """Names the loop in a continuation, or returns an empty string.

    A loop is an 8-gram that comes three times in the last 60 tokens, or a line
    that comes three times; the bare name of a speaker may come back.
    """
    last = tokens[-60:]
    grams = Counter(tuple(last[i : i + 8]) for i in range(len(last) - 7))
    if grams and max(grams.values()) >= 3:
        return "an 8-gram three times in the last 60 tokens"
    lines = Counter(s for s in map(str.strip, text.splitlines()) if s)
    for line, count in lines.items():
        if count >= 3 and not line.endswith(":"):
            return f"the line {line!r} {count} times"
    return ""
