# SPDX-License-Identifier: MIT
"""The machine that MLX runs on."""

import dataclasses
import functools
import platform
import re
import subprocess

import mlx.core as mx

from zmlx._compat import detect_backend
from zmlx.device_profile import get_device_profile


@dataclasses.dataclass(frozen=True)
class DeviceInfo:
    """family and variant ("M4", "Max"); what kind MLX computes on; the sizes of
    threadgroups that are worth trying."""

    family: str
    variant: str
    backend: str
    name: str
    gpu_cores: int
    bandwidth_gb_s: float
    default_threadgroup: int
    threadgroup_candidates: tuple

    @property
    def full_name(self):
        return f"{self.family} {self.variant}".strip()


def parse_chip(name):
    """("M4", "Max") of "Apple M4 Max"; ("Unknown", "") of another name."""
    found = re.search(r"\b(M\d+)(?: (Pro|Max|Ultra))?\b", name)
    return (found[1], found[2] or "") if found else ("Unknown", "")


def _name():
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip()
    device = mx.default_device()
    name = mx.device_info(device).get("device_name", "")
    return str(name) or platform.processor() or platform.machine()


@functools.cache
def detect_device():
    """This machine, looked at once."""
    name = _name()
    family, variant = parse_chip(name)
    profile = get_device_profile(family, variant)
    known = (profile.family, profile.variant) == (family, variant)
    apple = family != "Unknown"
    return DeviceInfo(
        family,
        variant,
        detect_backend(),
        name,
        profile.gpu_cores if known else 0,
        profile.bandwidth_gb_s if known else 0.0,
        profile.default_threadgroup if apple else 256,
        profile.threadgroup_candidates if apple else (64, 128, 256, 512),
    )
