# SPDX-License-Identifier: MIT
"""Walks a model's modules, fuses those that pass the probe, and puts them back."""

import difflib
import importlib
from dataclasses import dataclass, field

import mlx.nn as nn

from zmlx.patch import patterns as table
from zmlx.patch import probe, stock
from zmlx.patch.binding import Binding, Refusal

_RESULT = "_zmlx_patch_result"


@dataclass
class PatchResult:
    """What patch() did."""

    patched_count: int = 0
    pattern_counts: dict = field(default_factory=dict)
    #: "path: reason" of each module that matched and was left stock.
    skipped: list = field(default_factory=list)
    #: How much faster smart_patch() measured the model with each pattern.
    benchmarks: dict = field(default_factory=dict)
    #: The pattern of each fused module, by path.
    modules: dict = field(default_factory=dict)
    #: The largest relative difference from stock in each module's probe.
    probe_errors: dict = field(default_factory=dict)
    #: Whether the modules are those of mode="training".
    training: bool = False

    def summary(self):
        lines = [f"Patched {self.patched_count} modules:"]
        for name, count in sorted(self.pattern_counts.items()):
            ratio = self.benchmarks.get(name)
            lines.append(f"  {name}: {count}" + (f" ({ratio:.3f}x)" if ratio else ""))
        if self.skipped:
            lines.append(f"  Skipped: {len(self.skipped)}")
        return "\n".join(lines)

    def _add(self, path, pattern, error=None):
        self.patched_count += 1
        self.pattern_counts[pattern] = self.pattern_counts.get(pattern, 0) + 1
        self.modules[path] = pattern
        if error is not None:
            self.probe_errors[path] = error


def children_of(value, path=""):
    """(path, module) of the modules directly in a module, list or dict."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        inner = f"{path}.{key}" if path else str(key)
        if isinstance(item, nn.Module):
            yield inner, item
        elif isinstance(item, (dict, list, tuple)):
            yield from children_of(item, inner)


def modules_of(model):
    """Every module once, with its path: the model first, then what it holds."""
    seen, left = set(), [("", model)]
    while left:
        path, module = left.pop()
        if id(module) not in seen:
            seen.add(id(module))
            yield path, module
            left.extend(reversed(list(children_of(module, path))))


def chosen_patterns(names, exclude):
    """The table's rows of these names, in the table's order; KeyError."""
    for name in [*names, *exclude]:
        if name not in table.BY_NAME:
            close = difflib.get_close_matches(name, table.BY_NAME, 1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            known = ", ".join(sorted(table.BY_NAME))
            raise KeyError(f"[patch] no pattern '{name}'.{hint} Patterns are {known}.")
    return [p for p in table.PATTERNS if p.name in names and p.name not in exclude]


class Patcher:
    """Fuses what it can of a model. Modules whose stock call is dear are proved
    together at the end, as those calls take most of the time."""

    def __init__(self, patterns, options, report=lambda line: None):
        self.patterns = [p for p in patterns if p.match]
        self.whole = [p for p in patterns if p.whole]
        self.options = options
        self.report = report
        self.result = PatchResult(training=options.training)
        self._seen = set()
        self._dear = []  # (path, module, probe, patterns after)
        self._ahead = []  # what compiles for a GPU while modules are proved

    def apply(self, model):
        if self.options.on_gpu:
            self._ahead = [table.whole_model(p).prepare(model) for p in self.whole]
        self._visit("", model)
        while self._dear:
            dear, self._dear = self._dear, []
            probe.start_all([one[2] for one in dear])
            for path, module, proof, after in dear:
                if not self._settle(path, module, proof):
                    self._go_on(path, module, self._fuse(path, module, after))
        for pattern in self.whole:
            error, reason = table.whole_model(pattern).install(model)
            if reason:
                self._skip("model", f"{pattern.name}: {reason}")
            else:
                self._installed("model", pattern.name, error)
        self._ahead.clear()
        return self.result

    def _visit(self, path, module):
        if id(module) in self._seen:
            return
        self._seen.add(id(module))
        fused = stock.fused_of(module)
        if fused is not None:
            self.result._add(path, fused.pattern)  # it was fused before
        else:
            fused = self._fuse(path, module, self.patterns)
        self._go_on(path, module, fused)

    def _go_on(self, path, module, fused):
        """Visits what a module holds; of a fused one only the parts it calls."""
        inside = children_of(module, path)
        if fused is not None:
            inside = self._parts(path, module, fused)
        for inner, child in list(inside):
            self._visit(inner, child)

    @staticmethod
    def _parts(path, module, fused):
        for part in fused.descend:
            found = Binding().child(module, part)
            if isinstance(found, nn.Module):
                yield (f"{path}.{part}" if path else part), found

    def _fuse(self, path, module, patterns):
        """What fuses a module (or will, if its probe passes) by the first of the
        patterns that can, or None."""
        for i, pattern in enumerate(patterns):
            try:
                fused = pattern.match(module, self.options)
                if fused is None:
                    continue
                fused.pattern = pattern.name
                fused.rebind(module)
            except Refusal as refusal:
                self._skip(path, str(refusal))
                continue
            proof = probe.Probe(module, fused)
            if proof.dear:
                self._dear.append((path, module, proof, patterns[i + 1 :]))
                return fused
            if self._settle(path, module, proof):
                return fused
        return None

    def _settle(self, path, module, proof):
        """Installs what its probe proves; returns whether."""
        try:
            error = proof.error()
            if self.options.training:
                slopes = importlib.import_module("zmlx.patch.training")
                error = probe.max_of(
                    error,
                    slopes.gradient_error(module, proof.fused, probe.difference),
                )
        except Exception as failure:
            self._skip(path, f"the probe failed: {failure}")
            return False
        if not error <= probe.ALLOWED:
            self._skip(
                path,
                f"the probe must differ from stock by at most {probe.ALLOWED:g},"
                f" got {error:g}",
            )
            return False
        stock.install(module, proof.fused)
        self._installed(path, proof.fused.pattern, error)
        return True

    def _skip(self, path, reason):
        self.result.skipped.append(f"{path or 'model'}: {reason}")
        self.report(f"  left stock: {path or 'model'}: {reason}")

    def _installed(self, path, pattern, error):
        self.result._add(path, pattern, error)
        self.report(f"  {pattern}: {path or 'model'}")


def restore(model):
    """Makes every module stock again."""
    for pattern in table.PATTERNS:
        if pattern.whole:
            table.whole_model(pattern).remove(model)
    for _, module in modules_of(model):
        stock.remove(module)
    vars(model).pop(_RESULT, None)
