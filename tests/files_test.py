# SPDX-License-Identifier: MIT
"""The house rules on files are found broken where they are."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import check_files

HEAD = b"// SPDX-License-Identifier: MIT\n"


@pytest.mark.parametrize(
    "name, data, why",
    [
        ("a.h", b"#pragma once\n", "a.h:1: must start with"),
        ("a.cpp", b"", "a.cpp:1: must start with"),
        ("run", b"#!/bin/sh\necho\n", "run:1: must start with '# SPDX"),
        ("a.h", HEAD + b"// caf\xc3\xa9\n", "a.h:2: must be ASCII."),
        ("a.h", HEAD + b"int x; \n", "a.h:2: must not end in white space."),
        ("a.h", HEAD + b"int x;", "a.h: must end with a newline."),
        ("a.h", HEAD + b"\n" * 600, "a.h: must have at most 600 lines, got 601."),
        ("a_test.cpp", HEAD + b"\n" * 800, "at most 800 lines, got 801."),
    ],
)
def test_finds_a_broken_rule(name, data, why):
    (found,) = check_files.problems_of(name, data)
    assert why in found


@pytest.mark.parametrize(
    "name, data",
    [
        ("a.h", HEAD),
        ("a_test.cpp", HEAD + b"\n" * 799),
        ("a.sh", b"#!/usr/bin/env bash\n# SPDX-License-Identifier: MIT\n"),
        ("README.md", "caf\u00e9".encode()),
    ],
)
def test_lets_a_good_file_pass(name, data):
    assert list(check_files.problems_of(name, data)) == []
