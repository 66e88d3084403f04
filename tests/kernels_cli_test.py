# SPDX-License-Identifier: MIT
"""zmlx kernels and zmlx bench KERNEL: the catalog as its users meet it."""

import json

import pytest
from conftest import ROOT


def names(zmlx):
    lines = zmlx("kernels").stdout.splitlines()
    assert lines[0].split() == ["kernel", "family", "runs", "on", "gradient", "what"]
    return [line.split()[0] for line in lines[1:]]


def test_page_of_kernels_is_what_the_registry_prints(zmlx):
    page = (ROOT / "docs" / "kernels.md").read_text()
    assert zmlx("kernels", "--markdown").stdout == page, (
        "docs/kernels.md is stale: zmlx kernels --markdown > docs/kernels.md"
    )


def test_every_kernel_has_a_contract(zmlx):
    found = names(zmlx)
    assert len(found) == len(set(found)) >= 6
    done = zmlx("kernels", *found)
    assert done.returncode == 0
    contracts = done.stdout.split("\n\n")
    assert [text.split(":")[0] for text in contracts] == found
    for text in contracts:
        for word in ("call", "header", "inputs", "outputs", "checked", "timed"):
            assert f"\n{word} " in text, text


def test_header_of_a_contract_exists(zmlx):
    for line in zmlx("kernels", *names(zmlx)).stdout.splitlines():
        if line.startswith("header"):
            assert (ROOT / line.split()[1]).is_file()


def test_check_passes_and_tells_each_check_in_json(zmlx):
    done = zmlx("kernels", "--check", "rms_norm", "--json", "--device", "cpu")
    assert done.returncode == 0
    result = json.loads(done.stdout)
    checks = result["checks"]
    assert result["failed"] == 0
    assert result["passed"] == len(checks) == sum(c["passed"] for c in checks)
    assert {c["kernel"] for c in checks} == {"rms_norm"}
    assert {c["backend"] for c in checks} == {"cpu"}
    assert {c["check"] for c in checks} >= {"values", "strided", "threads"}
    done = zmlx("kernels", "--check", "gated_short_conv", "--device", "cpu")
    assert done.returncode == 0
    assert "0 failed, on 5 cases." in done.stdout


def test_check_of_nothing_is_no_success(zmlx):
    done = zmlx("kernels", "--check", "rms_norm", "--device", "gpu")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("zmlx kernels: nothing to check: MLX has no gpu here")


def test_bench_times_a_kernel_against_composed_mlx(zmlx):
    done = zmlx("bench", "rms_norm", "-r", 2, "-o", "json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == 3
    for row in rows:
        assert row["kernel"] == "rms_norm"
        assert len(row["samples_s"]) == len(row["composed_samples_s"]) == 2
        assert row["speedup"] == pytest.approx(
            row["composed_median_us"] / row["median_us"]
        )
        assert row["gb_per_s"] == pytest.approx(row["bytes"] / row["median_us"] / 1e3)
    assert rows[1]["bytes"] == 4 * (2 * 4096 * 4096 + 4096)


def test_bench_prints_a_table(zmlx):
    done = zmlx("bench", "gated_short_conv", "-r", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| gated_short_conv |") == 2
    assert "read bandwidth, measured:" in done.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["kernels", "rmsnorm"],
            "zmlx kernels: no kernel 'rmsnorm'. Did you mean 'rms_norm'? Run"
            " 'zmlx kernels' for the list.",
        ),
        (
            ["bench", "rms_nrm"],
            "zmlx bench: no kernel 'rms_nrm'. Did you mean 'rms_norm'? Run"
            " 'zmlx kernels' for the list.",
        ),
        (["bench"], "zmlx bench: --model or a kernel is required."),
        (
            ["bench", "rms_norm", "--model", "m"],
            "zmlx bench: takes kernels or --model, got 'rms_norm' and --model m.",
        ),
        (
            ["bench", "rms_norm", "-o", "csv"],
            "zmlx bench: -o must be md or json for kernels, got 'csv'.",
        ),
        (
            ["bench", "rms_norm", "-r", "0"],
            "zmlx bench: repetitions must be at least 1, got 0.",
        ),
        (["kernels", "--json"], "zmlx kernels: --json and --device go with --check."),
        (
            ["kernels", "--check", "--device", "tpu"],
            "zmlx kernels: --device must be cpu or gpu, got 'tpu'.",
        ),
    ],
)
def test_wrong_use_is_named_and_exits_2(zmlx, args, message):
    done = zmlx(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == message + "\n"
