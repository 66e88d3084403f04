# SPDX-License-Identifier: MIT
"""``python -m zmlx.train``: the command ``zmlx train``."""

import sys

from zmlx.cli import main

sys.exit(main(["train", *sys.argv[1:]]))
