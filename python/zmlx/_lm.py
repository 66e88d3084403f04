# SPDX-License-Identifier: MIT
"""What the command lines share: loading, prompts, patch flags and two sides."""

import contextlib
import difflib
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_map_with_path

DTYPES = {
    "float32": mx.float32,
    "float16": mx.float16,
    "bfloat16": mx.bfloat16,
}


def add_patch_flags(parser):
    group = parser.add_argument_group("patching")
    group.add_argument(
        "--patterns",
        nargs="+",
        metavar="P",
        help="patterns to use instead of the safe ones for the model and device",
    )
    group.add_argument(
        "--exclude", nargs="+", metavar="P", default=[], help="patterns to leave out"
    )
    return group


def names(values):
    """Names given apart or joined by commas; none stays None."""
    if values is None:
        return None
    return [name for value in values for name in value.split(",") if name]


def check_patterns(args):
    """Before a model is loaded, which may take long."""
    from zmlx.patch import list_patterns

    known = list_patterns()
    for name in [*(names(args.patterns) or []), *names(args.exclude)]:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ValueError(
                f"[patch] no pattern '{name}'.{hint} Patterns are {', '.join(known)}."
            )


def patch_model(model, args):
    """Patches as the flags say; returns the PatchResult."""
    from zmlx.patch import patch

    patch(model, patterns=names(args.patterns), exclude=names(args.exclude))
    return model._zmlx_patch_result


def folder_of(model):
    """A model's folder; a Hugging Face id is downloaded by mlx_lm if need be."""
    from mlx_lm.utils import _download

    return Path(_download(str(model)))


def dtype_of(model):
    """The type of a model's activations: that of its norms."""
    for _, module in model.named_modules():
        weight = module.get("weight")
        if isinstance(weight, mx.array) and "scales" not in module:
            return weight.dtype
    return mx.float32


def cast(model, dtype):
    """Changes the type of activations, as mlx_lm.convert does."""
    if dtype_of(model) == dtype:
        return
    may_cast = getattr(model, "cast_predicate", lambda path: True)

    def to_dtype(path, value):
        floating = mx.issubdtype(value.dtype, mx.floating)
        return value.astype(dtype) if floating and may_cast(path) else value

    model.update(tree_map_with_path(to_dtype, model.parameters()))
    mx.eval(model.parameters())


def load(folder, dtype=None):
    """(model, tokenizer or None where the folder has none, config)."""
    from mlx_lm.utils import load_model, load_tokenizer

    model, config = load_model(folder)
    if dtype is not None:
        cast(model, dtype)
    tokenizer = None
    if any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model")):
        tokenizer = load_tokenizer(folder, eos_token_ids=config.get("eos_token_id"))
    return model, tokenizer, config


def encode(tokenizer, text, raw=False):
    """The ids of a prompt, as mlx_lm.generate makes them."""
    if raw or not tokenizer.has_chat_template:
        return tokenizer.encode(text)
    messages = [{"role": "user", "content": text}]
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True))


def quantisation_text(config):
    """ "affine 4 bit, group 64", or "none"."""
    how = config.get("quantization")
    if not isinstance(how, dict):
        return "none"
    mode = how.get("mode", "affine")
    return f"{mode} {how['bits']} bit, group {how['group_size']}"


class Sides:
    """One model, stock or patched by turns: patched modules differ in their class
    alone, so changing sides probes nothing again. Stock finds its weights in rows,
    which are dropped again for the patched side."""

    def __init__(self, model, args):
        self._model = model
        stock = {id(m): (m, type(m)) for _, m in model.named_modules()}
        self.result = patch_model(model, args)
        self._sides = (stock, {k: (m, type(m)) for k, (m, _) in stock.items()})
        left = {id(m) for _, m in model.named_modules()} ^ stock.keys()
        if left:
            raise ValueError("[validate] patching must keep the model's modules.")

    def to(self, patched):
        from zmlx.decode import session_of

        for module, kind in self._sides[bool(patched)].values():
            module.__class__ = kind
        session = session_of(self._model)
        if session is not None and patched:
            session.weights.drop()
        elif session is not None:
            session.weights.unpack()


@contextlib.contextmanager
def replaced(owner, **values):
    """Sets attributes of a module or class for a while."""
    before = {name: getattr(owner, name) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)
