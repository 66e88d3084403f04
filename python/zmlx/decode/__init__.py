# SPDX-License-Identifier: MIT
"""Whole-token decoding of mlx_lm models: the pattern ``decode_step``.

``install(model)`` gives a model of mlx_lm a C++ network over the same arrays.
Calls with mlx_lm's caches go through it: one token a sequence as one operation,
prompts through fused layers, on a GPU through the model's own. What it cannot serve
(quantised caches, a window that is full, input embeddings, a model changed since)
goes through the model's own layers, with the same caches.
"""

from zmlx.decode.session import install, prepare, remove, session_of

__all__ = ["install", "prepare", "remove", "session_of"]
