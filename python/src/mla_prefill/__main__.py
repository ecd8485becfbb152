# SPDX-License-Identifier: Apache-2.0
"""``python -m mla_prefill``: the doctor's report, for bug reports."""

from mla_prefill.doctor import report

print(report())
