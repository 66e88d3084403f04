# SPDX-License-Identifier: MIT
"""``python -m zmlx.generate``: mlx_lm.generate, with its flags, on a patched model."""

import importlib
import sys

from zmlx import _lm
from zmlx._callable import make_callable_as
from zmlx.cli import run


class _Parsed:
    """A parser that has parsed."""

    def __init__(self, args):
        self._args = args

    def parse_args(self):
        return self._args


def main(argv=None):
    # The package's attribute of that name is the function.
    lm = importlib.import_module("mlx_lm.generate")
    parser = lm.setup_arg_parser()
    parser.prog = "zmlx.generate"
    parser.description = "mlx_lm.generate on a patched model."
    group = _lm.add_patch_flags(parser)
    group.add_argument("--no-patch", action="store_true", help="leave the model stock")
    group.add_argument(
        "--patch-verbose", action="store_true", help="print what was patched"
    )
    args = parser.parse_args(argv)
    _lm.check_patterns(args)

    def load(*positional, **named):
        loaded = lm_load(*positional, **named)
        if not args.no_patch:
            result = _lm.patch_model(loaded[0], args)
            if args.patch_verbose:
                print(result.summary(), file=sys.stderr)
        return loaded

    lm_load = lm.load
    with _lm.replaced(lm, load=load, setup_arg_parser=lambda: _Parsed(args)):
        lm.main()
    return 0


if __name__ != "__main__":
    make_callable_as(__name__, "zmlx.api", "generate")
else:
    sys.exit(run(main))
