# SPDX-License-Identifier: MIT
"""What a C++ network is built from, taken from an mlx_lm model."""

import dataclasses
import json

import mlx.nn as nn
from mlx.utils import tree_flatten

from zmlx import _core


def config_of(model):
    """The model's configuration as the text of a config.json. The family is that
    of the model's module: mlx_lm runs several model types by one (a Mistral is a
    Llama)."""
    args = getattr(model, "args", None)
    if not dataclasses.is_dataclass(args):
        raise ValueError("the model must have its configuration as args")
    config = dataclasses.asdict(args)
    package, _, module = type(model).__module__.rpartition(".")
    if package == "mlx_lm.models":
        config["model_type"] = module
    return json.dumps(config)


def packing_of(model):
    """(bits, group size, mode) of each quantised layer, by path."""
    packing = {}
    for path, module in model.named_modules():
        if "scales" in module:
            mode = getattr(module, "mode", "affine")
            packing[path] = (module.bits, module.group_size, mode)
    return packing


def network_of(model):
    """The C++ network of a model's arrays, which are evaluated or unpack themselves.
    It computes in float32; raises ValueError or RuntimeError with the reason when
    there is none for the model."""
    return _core.DecodeModel(*_all_of(model))


def compiled_ahead(model, cache_types):
    """What compiles the network's steps in the background; raises as network_of()."""
    return _core.CompiledAhead(*_all_of(model), cache_types)


def _all_of(model):
    arrays = dict(tree_flatten(model.parameters()))
    return config_of(model), arrays, packing_of(model), "the model"


def witness_of(model):
    """Notices when a module, an array or a setting of the model is replaced."""
    witness = _core.Witness()
    _watch(witness, model)
    return witness


# Not functions inside of witness_of(): those would refer to each other and keep the
# witness, and what it holds, until the garbage is collected.
def _watch(witness, value):
    if isinstance(value, nn.Module):
        _watch_dict(witness, value)
        settings = vars(value)
        for key, setting in settings.items():
            if key[0] != "_" and isinstance(setting, (bool, int, float, str)):
                witness.add(settings, key)
    elif isinstance(value, dict):
        _watch_dict(witness, value)
    elif isinstance(value, (list, tuple)):
        if isinstance(value, list):
            witness.add_list(value)
        for item in value:
            _watch(witness, item)


def _watch_dict(witness, holder):
    for key, value in holder.items():
        witness.add(holder, key)
        _watch(witness, value)
