# SPDX-License-Identifier: MIT
"""``python -m zmlx``: the console script."""

import sys

from zmlx.cli import main

sys.exit(main())
