#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs CTest on a build folder and counts the cases inside each entry.

Usage: run_tests.py BUILD [CTEST ARGUMENT...]
The last line is 'N passed, N failed' (', N skipped' where some were), summed
over GoogleTest and pytest cases; an entry without cases counts as one. Exits
with CTest's status, or 1 when no test ran.
"""

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def cases(path):
    """(passed, failed, skipped) of one JUnit file, None if there is none."""
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError):
        return None
    counts = [0, 0, 0]
    for case in root.iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            counts[1] += 1
        elif case.find("skipped") is not None or case.get("status") == "notrun":
            counts[2] += 1
        else:
            counts[0] += 1
    return counts


def total(results):
    """Sums the cases of every entry that CTest's own results name."""
    counts = [0, 0, 0]
    for entry in ElementTree.parse(results / "ctest.xml").getroot().iter("testcase"):
        good = entry.get("status") == "run"
        inner = cases(results / f"{entry.get('name')}.xml")
        if inner is None or sum(inner) == 0:
            ran = entry.find("skipped") is None
            inner = [int(good), int(not good and ran), int(not good and not ran)]
        elif not good and inner[1] == 0:
            inner[1] = 1  # it crashed or timed out outside its cases
        counts = [a + b for a, b in zip(counts, inner, strict=True)]
    return counts


def main(build, *arguments):
    results = Path(build).resolve() / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    # A test that hangs is a failure, not a wait.
    command = [os.environ.get("ZMLX_CTEST", "ctest"), "--test-dir", build]
    command += ["--output-on-failure", "-j2", "--timeout", "600"]
    command += ["--output-junit", str(results / "ctest.xml"), *arguments]
    status = subprocess.run(command).returncode
    if not (results / "ctest.xml").exists():
        return status or 1
    passed, failed, skipped = total(results)
    if status == 0 and failed:
        status = 1
    print(f"{passed} passed, {failed} failed" + f", {skipped} skipped" * (skipped > 0))
    return status or int(passed + failed == 0)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
