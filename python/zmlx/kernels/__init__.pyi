# SPDX-License-Identifier: MIT
# Written by tools/make_stubs.py.
from . import activations as activations
from . import attention as attention
from . import conv as conv
from . import dense as dense
from . import fused as fused
from . import loss as loss
from . import moe as moe
from . import norms as norms
from . import quant as quant
from . import reductions as reductions
from . import softmax as softmax
from . import transformer as transformer
from . import vlsp as vlsp
