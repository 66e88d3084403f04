# SPDX-License-Identifier: MIT
"""``python -m zmlx.bench``: the same as ``python -m zmlx.bench.report``."""

import sys

from zmlx.bench.report import main
from zmlx.cli import run

sys.exit(run(main))
