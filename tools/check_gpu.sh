#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Checks on this machine's GPU what CI can check on a CPU only: every kernel of
# the catalog on every case, the words of the Metal dialect, and how near to
# memory speed kernels run. Writes one JSON capsule and exits 1 if a check fails.
#   tools/check_gpu.sh [OUT.json]
# Takes minutes, nearly all of them MLX's compiler's, a core for each kernel;
# kernels not begun after ZMLX_CHECK_SECONDS (480) count as failed.
# Wants the programs zmlx, kernel_test, elementwise_test and gpu_figures in
# ZMLX_PROGRAMS, by default where a build of everything leaves them.
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
elementwise_test=$(find_program elementwise_test) || exit
gpu_figures=$(find_program gpu_figures) || exit

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$zmlx" doctor --json >"$work/doctor.json"

# run_tests NAME PROGRAM FILTER: GoogleTest in the background.
run_tests() {
  timeout 300 "$2" --gtest_output="json:$work/tests_$1.json" --gtest_filter="$3" \
    >"$work/tests_$1.log" 2>&1 &
}

# Everything at once: most of the time is MLX's compiler's, on one core each.
started=$(date +%s)
export ZMLX_CHECK_UNTIL=$((started + ${ZMLX_CHECK_SECONDS:-480}))
run_tests dialect "$kernel_test" 'KernelDialect.*'
run_tests kernels "$kernel_test" 'Kernel.*-*ThatDoesNotCompile*'
run_tests printed "$elementwise_test" 'PrintedKernel.*'
check_kernel() { # NAME
  local left=$((ZMLX_CHECK_UNTIL - $(date +%s)))
  if ((left <= 0)); then
    echo "not run: out of time" >"$work/kernel_$1.err"
    : >"$work/kernel_$1.json"
  else
    timeout "$left" "$zmlx" kernels "$1" --check --device gpu --json \
      >"$work/kernel_$1.json" 2>"$work/kernel_$1.err"
  fi
  echo "$SECONDS" >"$work/kernel_$1.seconds" # of this shell, made for it
}
export -f check_kernel
export work zmlx
# The last of the list first: activations, which take least, fill what is left.
"$zmlx" kernels | awk 'NR > 1 && /CUDA|Metal/ { print $1 }' | tac |
  xargs -P "$(nproc)" -I{} bash -c 'check_kernel {}'
wait
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
        {
            "name": name,
            "passed": result["passed"],
            "failed": result["failed"],
            "seconds": int(path.with_suffix(".seconds").read_text()),
        }
    )
suites = []
for log in sorted(work.glob("tests_*.log")):
    name, result = log.stem.removeprefix("tests_"), read(log.stem + ".json")
    if result is None or not result["tests"]:
        failures.append({"test": name, "detail": log.read_text()[-500:]})
        result = {"tests": 0, "failures": 1, "testsuites": []}
    for suite in result["testsuites"]:
        for case in suite["testsuite"]:
            for failure in case.get("failures", []):
                failures.append(
                    {"test": case["name"], "detail": failure["failure"][:500]}
                )
    failed = result["failures"]
    suites.append(
        {"name": name, "passed": result["tests"] - failed, "failed": failed}
    )
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
    "tests": suites,
    "failures": failures,
    "seconds": seconds,
    "figures": figures or (work / "figures.err").read_text()[-500:],
}
for of_the_account in ("environment", "models", "kernel cache"):
    capsule["machine"].pop(of_the_account, None)
pathlib.Path(out).write_text(json.dumps(capsule, indent=2) + "\n")
for part in [{"name": "catalog", **capsule["catalog"]}, *suites]:
    print(f"{part['name']}: {part['passed']} passed, {part['failed']} failed")
for figure in figures or []:
    print(
        f"{figure['name']:36} {figure['median_us']:9.1f} us {figure['gb_per_s']:8.0f} GB/s"
        f" {figure['percent_of_copy']:5.1f}% of a copy"
    )
for failure in failures[:20]:
    print("FAILED", json.dumps(failure))
sys.exit(bool(failures) or figures is None)
PYTHON
