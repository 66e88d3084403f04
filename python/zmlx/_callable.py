# SPDX-License-Identifier: MIT
"""Modules that are functions too: zmlx.elementwise("x * x"), and its names."""

import sys
import types


def make_callable(module_name, function):
    """Calling the module calls the function."""

    class CallableModule(types.ModuleType):
        __call__ = staticmethod(function)

    CallableModule.__call__.__doc__ = function.__doc__
    sys.modules[module_name].__class__ = CallableModule
