# SPDX-License-Identifier: MIT
"""Fused modules: a stock module whose class is swapped for a subclass.

Parameters, tree and children stay the module's own. A call reads them: while they
are those that were bound it goes to C++, once they are others of the same kinds it
binds those, and where a child is of another kind (a LoRALinear, say) it is the
stock call.
"""

from zmlx.patch.binding import Binding, Refusal


class Fused:
    """How a module of one class is run. ``row`` is its adapter."""

    method = "__call__"
    descend = ()  # paths of children that the call still goes through
    rowwise = True  # a row of the output depends on that row of the input alone
    pattern = None  # the name of the one that made it
    probed_rows = None  # of the probe's input; None: as many as it likes
    packed = False  # whether zmlx.decode keeps its weights in blocks

    def __init__(self, row, options):
        self.row = row
        self.options = options
        self.state = None  # (watched, what bind() made): one assignment

    def bind(self, binding, module):
        """What run() needs; raises Refusal."""
        raise NotImplementedError

    def run(self, module, made, stock_call, x):
        raise NotImplementedError

    def width(self, module):
        """Of the last axis of the input, for the probe."""
        raise NotImplementedError

    def arguments(self, module, x):
        """What the probe calls with."""
        return (x,)

    def with_outputs(self, module, step):
        """A stock module of the same weights that gives every step-th output, or
        None where that is no less work."""
        return None

    def routing(self, module, x):
        """(stock, ours): each expert's weight for a token, a column an expert, or
        None where the module has no router."""
        return None

    def inner(self, module, x):
        """Pairs (stock, ours) of what the output may not show well enough."""
        return ()

    def ready(self, module):
        """What bind() made, bound again where the module has changed; None: it
        cannot be."""
        state = self.state
        if state is not None:
            for mapping, key, value in state[0]:
                if mapping.get(key) is not value:
                    break
            else:
                return state[1]
            self.state = None  # keeps no arrays alive that the module has not
        try:
            return self.rebind(module)
        except Refusal:
            return None

    def rebind(self, module):
        binding = Binding()
        made = self.bind(binding, module)
        self.state = (binding.watched, made)
        return made

    # What is bound belongs to this module: a copy binds its own arrays.
    def __getstate__(self):
        return vars(self) | {"state": None}
