# SPDX-License-Identifier: Apache-2.0
"""``python -m mla_prefill``: the doctor's report, for bug reports.

``python -m mla_prefill transformers``: which of its MLA classes can be switched.
"""

import sys

from mla_prefill.doctor import report


def main(arguments: list[str]) -> str:
    if not arguments:
        return report()
    if arguments != ["transformers"]:
        sys.exit(f"usage: python -m mla_prefill [transformers], not {' '.join(arguments)}")
    try:
        from mla_prefill.transformers.classes import table
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed")
    return table()


# Paths and variables may hold what the stream cannot spell.
encoding = getattr(sys.stdout, "encoding", None) or "ascii"
print(main(sys.argv[1:]).encode(encoding, "backslashreplace").decode(encoding))
