# SPDX-License-Identifier: Apache-2.0
"""``python -m mla_prefill``: the doctor's report, for bug reports."""

import sys

from mla_prefill.doctor import report

# Paths and variables may hold what the stream cannot spell.
encoding = getattr(sys.stdout, "encoding", None) or "ascii"
print(report().encode(encoding, "backslashreplace").decode(encoding))
