# SPDX-License-Identifier: Apache-2.0
"""``python -m mla_prefill``: see ``mla_prefill.cli``, or ``--help``."""

import sys

from mla_prefill.cli import main

sys.exit(main(sys.argv[1:]))
