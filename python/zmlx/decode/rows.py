# SPDX-License-Identifier: MIT
"""Prompts of a batch whose sequences differ in length, one sequence at a time."""

import mlx.core as mx


def _ends(caches, length, batch):
    """How many of `length` columns each row's own tokens end after."""
    ends = [length] * batch
    for cache in caches:
        lengths = getattr(cache, "lengths", None)
        if lengths is not None:
            ends = [max(0, min(length, n)) for n in lengths.tolist()]
    return ends


def _row_cache(cache, row, start, begin):
    """The cache of one sequence alone."""
    from mlx_lm.models.cache import ArraysCache, KVCache

    if isinstance(cache, ArraysCache):
        alone = ArraysCache(1)
        if cache[0] is not None:
            alone[0] = cache[0][row : row + 1]
        return alone
    alone = KVCache()
    if cache.keys is not None and begin > start:
        alone.keys = cache.keys[row : row + 1, :, start:begin]
        alone.values = cache.values[row : row + 1, :, start:begin]
        alone.offset = begin - start
    return alone


def _padded(array, axis, left, right):
    widths = [(0, 0)] * array.ndim
    widths[axis] = (left, right)
    return mx.pad(array, widths)


def forward_by_rows(network, tokens, caches):
    """As network.forward(), for BatchKVCache with padding among its rows or the new
    tokens; None when the caches are not of that kind. Logits of padding are 0."""
    from mlx_lm.models.cache import ArraysCache, BatchKVCache

    batch, length = tokens.shape
    kv = [c for c in caches if type(c) is BatchKVCache]
    arrays = [c for c in caches if type(c) is ArraysCache and len(c.cache) == 1]
    if not kv or len(kv) + len(arrays) != len(caches):
        return None
    starts = kv[0].left_padding.tolist()
    begin = kv[0]._idx
    if len(starts) != batch or any(
        c._idx != begin or c.left_padding.tolist() != starts for c in kv[1:]
    ):
        return None
    skips = [min(length, max(0, start - begin)) for start in starts]
    for cache in arrays:
        if cache.left_padding is not None:
            padding = [max(0, n) for n in cache.left_padding.tolist()]
            if padding != skips:
                return None
    ends = _ends(caches, length, batch)

    logits, alone = [], []
    for row in range(batch):
        own = [_row_cache(c, row, starts[row], begin) for c in caches]
        piece = tokens[row : row + 1, skips[row] : ends[row]]
        if piece.shape[1] == 0:
            logits.append(None)
        else:
            out = network.forward(piece, own)
            if out is None:
                return None
            logits.append(_padded(out, 1, skips[row], length - ends[row]))
        alone.append(own)

    blank = next((mx.zeros_like(one) for one in logits if one is not None), None)
    if blank is None:
        return None
    _join(caches, alone, begin, starts, skips, ends, length)
    return mx.concatenate([blank if one is None else one for one in logits])


def _join(caches, alone, begin, starts, skips, ends, length):
    """Puts what the sequences' own caches have got into the batch's."""
    from mlx_lm.models.cache import ArraysCache

    for i, cache in enumerate(caches):
        parts = [own[i] for own in alone]
        if isinstance(cache, ArraysCache):
            states = [part[0] for part in parts]
            blank = next(mx.zeros_like(s) for s in states if s is not None)
            cache[0] = mx.concatenate([blank if s is None else s for s in states])
            cache.advance(length)
            continue
        new = {"keys": [], "values": []}
        for row, part in enumerate(parts):
            first = max(0, begin - starts[row])
            for name, rows in new.items():
                held = getattr(part, name)
                if held is None or ends[row] <= skips[row]:
                    rows.append(None)
                    continue
                held = held[:, :, first : first + ends[row] - skips[row]]
                rows.append(_padded(held, 2, skips[row], length - ends[row]))
        joined = []
        for rows in new.values():
            blank = next(mx.zeros_like(r) for r in rows if r is not None)
            joined.append(mx.concatenate([blank if r is None else r for r in rows]))
        cache.update_and_fetch(*joined)
