# SPDX-License-Identifier: Apache-2.0
"""``python -m mla_prefill`` in a process of its own."""

import json
import os
import subprocess
import sys


def run(*arguments, status=0, program=("-m", "mla_prefill"), **environment):
    """stdout and stderr."""
    done = subprocess.run(
        [sys.executable, *program, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def facts(*arguments, status=0, **environment):
    return json.loads(run(*arguments, "--json", status=status, **environment)[0])
