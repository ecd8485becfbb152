# SPDX-License-Identifier: Apache-2.0
"""The host: its CPU, the threads that runs use, the library that is loaded."""

from collections.abc import Callable
from typing import Any

from mla_prefill import _core


def cpu_features() -> dict[str, Any]:
    """What the CPU offers and which kernels serve it.

    Keys: ``vendor``, ``model``, ``features`` (a tuple such as ``("avx2", ...)``),
    ``best_isa``, ``isa`` (capped by ``MLA_MAX_ISA``), ``bf16_isa``, ``fp16_isa``,
    ``fp32_isa``, ``num_processors``.
    """
    return _core.cpu_features()


def cpu_summary() -> str:
    """The same as one line, for logs; says what of ``MLA_MAX_ISA`` is ignored."""
    return _core.cpu_summary()


def set_num_threads(num_threads: int) -> None:
    """Sets how many threads runs use, the calling one included, from the next run on.

    0 is the default: the processors that this process may run on now, less where its
    control groups grant it less of their time. Results have the same bits whatever the
    number.

    Raises:
        TypeError: not an integer.
        ValueError: below 0 or above 1024.
    """
    _core.set_num_threads(num_threads)


def get_num_threads() -> int:
    """How many threads the next run uses."""
    return _core.get_num_threads()


def use_openmp_threads(enabled: bool = True) -> bool:
    """Runs the library's loops on OpenMP's threads, those of torch's operators.

    For engines that alternate between the two: threads of OpenMP keep their
    processors for some time after each operator, where threads of the library's own
    would have to wait for them; and engines pin them. The number of pieces that a run
    is cut into stays that of `get_num_threads`. False goes back to the library's own
    threads, and so does a forked child.

    Returns:
        Whether runs are on OpenMP's threads from now on. They are not where no OpenMP
        library is loaded for the whole process: import torch before.

    Raises:
        TypeError: ``enabled`` is neither True nor False.
    """
    return _core.use_openmp_threads(enabled)


def set_log_callback(callback: Callable[[int, str], object] | None) -> None:
    """Hands what the library has to say to a function (C: ``mla_set_log_callback``).

    It is called as ``callback(level, message)``, with ``logging``'s levels, by whichever
    thread's call into this package ends next after something was said, and may call the
    package itself. What it raises goes to ``sys.unraisablehook`` and fails no call, but for
    what is no ``Exception``, a ``KeyboardInterrupt`` say, which the call raises. It gets the
    lines of ``set_verbose(level, to_log=True)``, too.

    Args:
        callback: takes the place of the logger ``mla_prefill``, of an earlier function and of
            a callback that C code of this process has set. None: the logger again, unless C
            code has set a callback since.

    Raises:
        TypeError: neither None nor callable.
    """
    _core.set_log_callback(callback)


def set_verbose(level: int, to_log: bool = False) -> None:
    """Has the library tell of calls, one line each (C: ``mla_set_verbose``).

    Args:
        level: 0 nothing; 1 a line when a run, a layer, a merge or an access to a cache
            returns; 2 also what was decided before, and why. Until this is called it is
            what ``MLA_VERBOSE`` in the environment says.
        to_log: to the logger ``mla_prefill``, or to the function that `set_log_callback` has
            named, at level INFO, instead of standard error.

    Raises:
        TypeError: ``level`` is no integer, or ``to_log`` neither True nor False.
        ValueError: ``level`` is another number.
    """
    _core.set_verbose(level, to_log)


def stats() -> list[dict[str, Any]]:
    """What calls have done in this process, since it began or since `reset_stats`.

    Returns:
        For each entry and kind of kernel that has calls: ``entry`` (the C function),
        ``kernel`` (an instruction set's name, ``cuda``, ``cudnn``, ``registered``, or
        ``none`` for calls that were refused), ``calls``, ``failures``, ``tokens`` and
        ``seconds``.
    """
    return _core.stats()


def reset_stats() -> None:
    """Sets all that `stats` counts to 0."""
    _core.reset_stats()


def trim() -> int:
    """Gives back to the system the memory that runs have left to the next ones.

    Runs under way keep theirs, and later ones take it anew.

    Returns:
        How many bytes went.
    """
    return _core.trim()


def library_path() -> str | None:
    """The file of the library that is loaded, for C code that is to share its registry."""
    return _core.library_path()
