# SPDX-License-Identifier: MIT
"""The count that closes 'make test' is the truth, crashes included."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import run_tests

GTEST = (
    '<testsuites><testsuite><testcase name="a" status="run"/>{}'
    '<testcase name="d" status="notrun"/></testsuite></testsuites>'
)
FAILURE = '<testcase name="b" status="run"><failure message="x"/></testcase>'
PYTEST = (
    '<testsuites><testsuite><testcase name="a"/><testcase name="b">'
    "<skipped/></testcase><testcase name='c'><error/></testcase>"
    "</testsuite></testsuites>"
)


def entry(name, status):
    inner = {"run": "", "fail": "<failure/>", "disabled": "<skipped/>"}[status]
    return f'<testcase name="{name}" status="{status}">{inner}</testcase>'


@pytest.mark.parametrize(
    "status, xml, counts",
    [
        ("run", GTEST.format(""), [1, 0, 1]),
        ("fail", GTEST.format(FAILURE), [1, 1, 1]),
        ("fail", PYTEST, [1, 1, 1]),
        ("fail", GTEST.format(""), [1, 1, 1]),  # crashed after its cases
        ("fail", "<testsuites", [0, 1, 0]),  # crashed while writing
        ("fail", None, [0, 1, 0]),
        ("run", None, [1, 0, 0]),
        ("disabled", None, [0, 0, 1]),
    ],
)
def test_counts_the_cases_of_an_entry(tmp_path, status, xml, counts):
    (tmp_path / "ctest.xml").write_text(
        f"<testsuite>{entry('x_test', status)}{entry('other', 'run')}</testsuite>"
    )
    if xml is not None:
        (tmp_path / "x_test.xml").write_text(xml)
    assert run_tests.total(tmp_path) == [counts[0] + 1, counts[1], counts[2]]
