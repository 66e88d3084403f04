# SPDX-License-Identifier: MIT
"""Modules that are functions too: zmlx.elementwise("x * x"), and its names."""

import importlib
import sys
import types


def make_callable(module_name, function):
    """Calling the module calls the function."""

    class CallableModule(types.ModuleType):
        __call__ = staticmethod(function)

    CallableModule.__call__.__doc__ = function.__doc__
    sys.modules[module_name].__class__ = CallableModule


def make_callable_as(module_name, owner, name):
    """Calling the module calls a function of another one, loaded when it is called."""

    def call(*args, **kwargs):
        return getattr(importlib.import_module(owner), name)(*args, **kwargs)

    call.__doc__ = f"{owner}.{name}."
    make_callable(module_name, call)
