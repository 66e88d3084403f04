# SPDX-License-Identifier: MIT
"""The kernels of the library: zmlx.kernels.<module>.<name>.

Every function is made from the registry of the C++ library: its signature, its
documentation and what it runs. They take and return mx.array on any device, and
work under mx.grad, mx.vmap and mx.compile.
"""

import sys

from zmlx.kernels._generate import modules

_made = modules(__name__)
globals().update(_made)
sys.modules.update({f"{__name__}.{name}": made for name, made in _made.items()})
__all__ = sorted(_made)
