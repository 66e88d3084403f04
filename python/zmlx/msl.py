# SPDX-License-Identifier: MIT
"""Metal text that kernels share."""

# kk_sigmoid takes the form that does not overflow on either side.
DEFAULT_HEADER = """\
#include <metal_stdlib>
using namespace metal;

template <typename T>
inline T kk_sigmoid(T x) {
  float e = metal::exp(-metal::abs(float(x)));
  return T((float(x) < 0.0f ? e : 1.0f) / (1.0f + e));
}

template <typename T>
inline T kk_silu(T x) {
  return x * kk_sigmoid(x);
}

template <typename T>
inline T kk_gelu_tanh(T x) {
  float v = float(x);
  float u = 0.7978845608f * (v + 0.044715f * v * v * v);
  return T(0.5f * v * (1.0f + metal::tanh(u)));
}
"""

_IMPLIED = ("#include <metal_stdlib>", "using namespace metal;")


def kernel_header(header):
    """A header for a raw kernel: what every device has already is left out."""
    lines = (header or "").splitlines()
    return "\n".join(line for line in lines if line.strip() not in _IMPLIED)


def expression_header(header):
    """A header for an expression, which knows the kk_ helpers by itself."""
    return kernel_header((header or "").replace(DEFAULT_HEADER, ""))
