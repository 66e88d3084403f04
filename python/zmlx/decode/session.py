# SPDX-License-Identifier: MIT
"""Installs a network in a model, proves it first, and sends calls through it."""

import functools
import inspect
import threading
import warnings
from dataclasses import dataclass

import mlx.core as mx

from zmlx import _core
from zmlx.decode import packing, parts
from zmlx.decode.rows import forward_by_rows
from zmlx.patch.probe import narrow_type

_ATTRIBUTE = "_zmlx_decode"


class Session:
    """A model's network, and what shows whether the model is still the one that
    the network was made of."""

    def __init__(self, model, network, proof):
        self.network = network
        self.error = proof.error
        self.weights = _core.PackedWeights()  # those that lie in blocks
        self._witness = parts.witness_of(model)
        self._proof = proof  # until the weights are where they will stay
        self._lock = threading.Lock()

    def run(self, model, tokens, cache):
        """Logits (batch, length, vocab), or None: the layers must do it."""
        if not self._is_current() or tokens.ndim != 2 or tokens.shape[1] == 0:
            return None
        if self._proof is not None:
            self._settle(model)
        self.weights.drop()
        if cache is None:
            # Only a model in training may be asked for gradients.
            return None if model.training else self.network.forward(tokens, None)
        if not isinstance(cache, list):
            return None
        logits = self.network.forward(tokens, cache)
        if logits is None and tokens.shape[1] > 1:
            logits = forward_by_rows(self.network, tokens, cache)
        return logits

    def holds(self):
        """Whether the model is what the network was made of."""
        return (
            self.network is not None and self._witness.holds() and self.weights.holds()
        )

    def _settle(self, model):
        """Moves the weights to where decoding reads them fastest: into blocks,
        the rest into huge pages. Here and not in patch(), for it takes longer
        than patching, and not every patched model decodes."""
        with self._lock:
            proof, self._proof = self._proof, None
            if proof is None:
                return  # another thread did
            modules = packing.packable(model) if _core.wants_blocks() else []
            if modules:
                # Or both forms would be in memory.
                self.network = self._witness = None
                self.weights = packing.pack(modules)
                self.network = parts.network_of(model)
                if not proof.error_of(self.network.forward, model) <= _SAME:
                    self.network = None
                    self.weights.restore()
                    self.network = parts.network_of(model)
                self._witness = parts.witness_of(model)
                self.weights.count_holders()
            self.network.move_weights()

    def _is_current(self):
        if self.network is None:
            return False
        if self.holds():
            return True
        # It would keep weights alive that the model has no more.
        self.network = self._witness = None
        warnings.warn(
            "[decode_step] the model has changed since it was patched, so it runs"
            " through its own layers. Try: patch(model) again.",
            stacklevel=4,
        )
        return False

    def __deepcopy__(self, memo):
        return None  # A copy of the model has other arrays.

    def __reduce__(self):
        return (type(None), ())


def session_of(model):
    """The model's session, or None."""
    return vars(model).get(_ATTRIBUTE)


@functools.cache
def _fast_class(stock):
    """A subclass of a model's class that asks the session first."""

    @functools.wraps(stock.__call__)
    def call(self, inputs, cache=None, *rest, **named):
        session = session_of(self)
        plain = all(value is None for value in (*rest, *named.values()))
        if session is not None and plain and isinstance(inputs, mx.array):
            logits = session.run(self, inputs, cache)
            if logits is not None:
                return logits
        return stock.__call__(self, inputs, cache, *rest, **named)

    # The name and module stay: mlx_lm and patch() tell families by them.
    fast = type(stock.__name__, (stock,), {"__call__": call, "_zmlx_stock": stock})
    fast.__module__ = stock.__module__
    fast.__qualname__ = stock.__qualname__
    return fast


def _stock_class(model):
    return getattr(type(model), "_zmlx_stock", type(model))


def prepare(model):
    """Begins to compile what the model's network will call on a GPU, with the
    probe's caches and with those that the model makes; goes on while what it
    returns lives."""
    session = session_of(model)
    if session is not None and session.holds():
        return None
    narrow = narrow_type(model)
    try:
        return parts.compiled_ahead(
            model, [mx.float32] + ([] if narrow is None else [narrow])
        )
    except (ValueError, RuntimeError, TypeError):
        return None  # install() meets it again, and says so


def install(model):
    """Gives the model a network if it passes the probe. Returns (error, reason):
    the probe's relative error and "", or None and why the model stays as it is.
    Does nothing where the model's network is still good.
    """
    session = session_of(model)
    if session is not None and session.holds():
        return session.error, ""
    remove(model)
    mx.eval(model.parameters())
    try:
        network = parts.network_of(model)
    except (ValueError, RuntimeError, TypeError) as refusal:
        return None, str(refusal)
    proof = probe(model, network)
    if not proof.error <= _ALLOWED:
        return None, (
            f"the probe must differ from the model's layers by at most {_ALLOWED:g},"
            f" got {proof.error:g}"
        )
    setattr(model, _ATTRIBUTE, Session(model, network, proof))
    model.__class__ = _fast_class(type(model))
    return proof.error, ""


def remove(model):
    """Takes the network away; returns whether there was one."""
    if not hasattr(type(model), "_zmlx_stock"):
        return False
    session = session_of(model)
    if session is not None:  # as it is in a copy
        session.weights.restore()
    model.__class__ = _stock_class(model)
    delattr(model, _ATTRIBUTE)
    return True


# As C++'s probe: rounding of a float32 sum of 10^4 terms is below 1e-5 of its
# size.
_ALLOWED = 1e-4
# Sums in another order, of integers for the most part.
_SAME = 1e-5


def _rows_of(embedding, tokens):
    """What an embedding gives for tokens, in float32."""
    if "scales" not in embedding:
        return embedding.weight[tokens].astype(mx.float32)
    scales, biases = embedding.scales[tokens], embedding.get("biases")
    if biases is not None:
        scales = scales.astype(mx.float32)
        biases = biases[tokens].astype(mx.float32)
    rows = mx.dequantize(
        embedding.weight[tokens],
        scales,
        biases,
        group_size=embedding.group_size,
        bits=embedding.bits,
        mode=getattr(embedding, "mode", "affine"),
    )
    return rows.astype(mx.float32)


def probe(model, network):
    """The network against the model's layers on a prompt of three tokens (of one on
    a GPU) and two steps after it.

    A near tie in a router may send a token to another expert on one side, rightly;
    so one of two prompts must agree. The layers compute in float32 too, whatever
    the type of the weights, by way of input embeddings where the model takes them.
    """
    stock = _stock_class(model)
    embed = getattr(getattr(model, "model", None), "embed_tokens", None)
    takes_embeddings = "input_embeddings" in inspect.signature(stock).parameters or (
        "input_embeddings" in inspect.signature(stock.__call__).parameters
    )

    def layers(tokens, cache):
        if embed is None or not takes_embeddings:
            return stock.__call__(model, tokens, cache=cache)
        h = _rows_of(embed, tokens)
        return stock.__call__(model, tokens, cache=cache, input_embeddings=h)

    proof = None
    for seed in (4, 5):
        vocab = model.args.vocab_size
        tokens = mx.random.randint(0, vocab, (1, 5), key=mx.random.key(seed))
        if mx.default_device() == mx.Device(mx.gpu):
            tokens = tokens[:, 2:]  # there the network takes one token at a time
        expected = _on_prompt_and_steps(layers, model, tokens)
        # Or a GPU may run its kernels beside a step's, whose blocks wait for one
        # another.
        mx.eval(expected)
        got = _on_prompt_and_steps(network.forward, model, tokens)
        error = _apart(expected, got)
        if proof is None or error < proof.error or proof.error != proof.error:
            proof = Proof(tokens, got, error)
        if proof.error <= _ALLOWED:
            break
    return proof


@dataclass(frozen=True)
class Proof:
    """What a network gave for tokens, and how far from the layers that was."""

    tokens: mx.array
    logits: mx.array
    error: float

    def error_of(self, forward, model):
        """How far from that another network is."""
        return _apart(self.logits, _on_prompt_and_steps(forward, model, self.tokens))


def _on_prompt_and_steps(forward, model, tokens):
    """Logits of a prompt of all tokens but two, and of the two as steps."""
    from mlx_lm.models.cache import make_prompt_cache

    cache = make_prompt_cache(model)
    logits = [
        forward(piece, cache)
        for piece in (tokens[:, :-2], tokens[:, -2:-1], tokens[:, -1:])
    ]
    return mx.concatenate(logits, axis=1).astype(mx.float32)


def _apart(expected, got):
    """The largest difference over the largest logit."""
    return (mx.abs(got - expected).max() / mx.abs(expected).max()).item()
