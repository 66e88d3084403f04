#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Checks on this machine's GPU what CI can check on a CPU only: every kernel of
# the catalog on every case, the words of the Metal dialect, and how near to
# memory speed kernels run. Writes one JSON capsule and exits 1 if a check fails.
#   tools/check_gpu.sh [OUT.json]
# Wants the programs zmlx, kernel_test and gpu_figures in ZMLX_PROGRAMS, by
# default where `make build` and a build of tests leave them.
set -uo pipefail
out=${1:-gpu_kernels.json}
programs=${ZMLX_PROGRAMS:-}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
find_program() {
  local place
  for place in "$programs" "$root/build/bin" "$root/build/tests"; do
    [ -n "$place" ] && [ -x "$place/$1" ] && printf '%s\n' "$place/$1" && return
  done
  echo "check_gpu: $1 is not built" >&2
  exit 2
}
zmlx=$(find_program zmlx) || exit
kernel_test=$(find_program kernel_test) || exit
gpu_figures=$(find_program gpu_figures) || exit

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$zmlx" doctor --json >"$work/doctor.json"

# Each kernel in a process of its own: most of the time is MLX's compiler's.
started=$(date +%s)
"$zmlx" kernels | awk 'NR > 1 && /CUDA|Metal/ { print $1 }' |
  xargs -P "$(nproc)" -I{} sh -c \
    "timeout 300 '$zmlx' kernels {} --check --device gpu --json >'$work/kernel_{}.json' 2>'$work/kernel_{}.err'"
(cd "$work" && timeout 300 "$kernel_test" --gtest_output="json:$work/dialect.json" \
  --gtest_filter='Kernel.*:KernelDialect.*-*ThatDoesNotCompile*' >"$work/dialect.log" 2>&1)
checked=$(($(date +%s) - started))
"$gpu_figures" >"$work/figures.json" 2>"$work/figures.err"

python3 - "$work" "$out" "$checked" <<'PYTHON'
import json, pathlib, sys, time

work, out, seconds = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])


def read(name):
    try:
        return json.loads((work / name).read_text())
    except (OSError, ValueError):
        return None


kernels, failures = [], []
for path in sorted(work.glob("kernel_*.json")):
    name, result = path.stem.removeprefix("kernel_"), read(path.name)
    if result is None:
        error = path.with_suffix(".err").read_text().strip()[-500:]
        result = {"passed": 0, "failed": 1, "checks": []}
        failures.append({"kernel": name, "detail": error or "no result"})
    failures += [c for c in result["checks"] if not c["passed"]]
    kernels.append(
        {"name": name, "passed": result["passed"], "failed": result["failed"]}
    )
tests = read("dialect.json") or {"tests": 0, "failures": 1, "testsuites": []}
for suite in tests["testsuites"]:
    for case in suite["testsuite"]:
        for failure in case.get("failures", []):
            failures.append(
                {"test": case["name"], "detail": failure["failure"][:500]}
            )
if not tests["tests"]:
    failures.append({"test": "dialect", "detail": (work / "dialect.log").read_text()[-500:]})
figures = read("figures.json")
capsule = {
    "schema_version": 1,
    "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    "machine": read("doctor.json"),
    "catalog": {
        "passed": sum(k["passed"] for k in kernels),
        "failed": sum(k["failed"] for k in kernels),
        "kernels": kernels,
    },
    "dialect": {
        "passed": tests["tests"] - tests["failures"],
        "failed": tests["failures"],
    },
    "failures": failures,
    "seconds": seconds,
    "figures": figures or (work / "figures.err").read_text()[-500:],
}
capsule["machine"].pop("environment", None)
pathlib.Path(out).write_text(json.dumps(capsule, indent=2) + "\n")
for part in ("catalog", "dialect"):
    print(f"{part}: {capsule[part]['passed']} passed, {capsule[part]['failed']} failed")
for figure in figures or []:
    print(
        f"{figure['name']:36} {figure['median_us']:9.1f} us {figure['gb_per_s']:8.0f} GB/s"
        f" {figure['percent_of_copy']:5.1f}% of a copy"
    )
for failure in failures[:20]:
    print("FAILED", json.dumps(failure))
sys.exit(bool(failures) or figures is None)
PYTHON
