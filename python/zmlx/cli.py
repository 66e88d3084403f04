# SPDX-License-Identifier: MIT
"""The console script ``zmlx``, also ``python -m zmlx``: one module a command.

A command is a line of COMMANDS; its module has ``main(argv)``, or what the line
names, which returns the exit code. Modules load only when their command runs.
"""

import difflib
import importlib
import sys

# name: (module, what it does), or (module:function, what it does)
COMMANDS = {
    "export": ("zmlx.train.cli:export_main", "merge trained adapters into a model"),
    "generate": ("zmlx.generate", "generate text with a patched model"),
    "profile": ("zmlx.profile_cli", "time a model's step"),
    "report": ("zmlx.bench.report", "print the table of a capsule"),
    "server": ("zmlx.server", "serve a patched model over HTTP"),
    "train": ("zmlx.train.cli", "fine-tune a patched model"),
    "validate": ("zmlx.validate", "compare a model with and without patching"),
}


def usage():
    lines = ["usage: zmlx COMMAND [options]", "", "commands:"]
    lines += [f"  {name:<10}{text}" for name, (_, text) in sorted(COMMANDS.items())]
    lines += ["", "zmlx COMMAND --help shows a command's options."]
    return "\n".join(lines)


def main(argv=None):
    """Runs a command. 0: done, 1: no command or a failure, 2: wrong use."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv:
        print(usage())
        return 1
    name, *rest = argv
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name in ("-V", "--version"):
        import zmlx

        print(f"zmlx {zmlx.__version__}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        known = ", ".join(sorted(COMMANDS))
        print(
            f"zmlx: the command must be one of {known}, got '{name}'.{hint}",
            file=sys.stderr,
        )
        return 2
    module, _, function = COMMANDS[name][0].partition(":")
    return run(getattr(importlib.import_module(module), function or "main"), rest)


def run(main, argv=None):
    """Calls a command's main; errors of use become one line and exit code 2."""
    from zmlx import _core

    try:
        return main(sys.argv[1:] if argv is None else argv) or 0
    except (ValueError, OSError, _core.FileError, _core.BackendError) as error:
        print(f"zmlx: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
