# SPDX-License-Identifier: MIT
"""What is known of Apple's chips, and sizes to try on them."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class DeviceProfile:
    family: str
    variant: str
    gpu_cores: int
    bandwidth_gb_s: float
    default_threadgroup: int
    threadgroup_candidates: tuple

    @property
    def full_name(self):
        return f"{self.family} {self.variant}".strip()


# GPU cores and GB/s of memory; those of the M4 Ultra are projected.
_CHIPS = {
    ("M1", ""): (8, 68),
    ("M1", "Pro"): (16, 200),
    ("M1", "Max"): (32, 400),
    ("M1", "Ultra"): (64, 800),
    ("M2", ""): (10, 100),
    ("M2", "Pro"): (19, 200),
    ("M2", "Max"): (38, 400),
    ("M2", "Ultra"): (76, 800),
    ("M3", ""): (10, 100),
    ("M3", "Pro"): (18, 150),
    ("M3", "Max"): (40, 400),
    ("M3", "Ultra"): (80, 800),
    ("M4", ""): (10, 120),
    ("M4", "Pro"): (20, 273),
    ("M4", "Max"): (40, 546),
    ("M4", "Ultra"): (80, 1000),
}


def _candidates(family, variant):
    if not variant:
        return (64, 128, 256)
    large = variant == "Ultra" or (family, variant) == ("M4", "Max")
    return (256, 512, 1024) if large else (128, 256, 512)


def get_device_profile(family, variant=""):
    """The profile of a chip; that of the M1 for one that is not known."""
    known = (family, variant) in _CHIPS
    family, variant = (family, variant) if known else ("M1", "")
    cores, bandwidth = _CHIPS[family, variant]
    return DeviceProfile(
        family,
        variant,
        cores,
        bandwidth,
        256 if variant else 128,
        _candidates(family, variant),
    )


def get_threadgroup_candidates_for_shape(profile, dim_size, kernel_type="elementwise"):
    """Sizes to try for rows of dim_size, in rising order: whole SIMD-groups, and
    none that would leave most of its threads without work."""
    if dim_size < 1:
        raise ValueError(
            "[get_threadgroup_candidates_for_shape] dim_size must be 1 or more, got"
            f" {dim_size}."
        )
    sizes = sorted(profile.threadgroup_candidates)
    if kernel_type in ("simd", "reduction"):
        sizes = [size for size in sizes if size % 32 == 0]
    useful = 32
    while useful < dim_size:
        useful *= 2
    return [size for size in sizes if size <= useful] or [min(sizes[0], useful)]
