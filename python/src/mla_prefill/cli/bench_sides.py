# SPDX-License-Identifier: Apache-2.0
"""What ``bench`` times: the library, torch, and the rate of an instruction about them."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from random import Random
from statistics import median
from typing import NamedTuple

from mla_prefill import _core, host
from mla_prefill.cli.model import Model
from mla_prefill.cli.plain_tensors import empty, repeated_tensor
from mla_prefill.configuration import MLAPrefillConfig
from mla_prefill.metadata import PrefillMetadata
from mla_prefill.registry import MLAPrefillBackendEnum
from mla_prefill.selector import chosen_member

#: Threads of torch's keep their processors for some milliseconds after an operator.
_SETTLING = 0.02
_PROBE = 0.01
#: A run is repeated until it takes this long: clocks and what wakes threads are no part of it.
_SHORTEST_SAMPLE = 0.004
#: More of them leave a median where it is.
_MOST_SAMPLES = 21


class Prompt:
    """One request's tensors, as the library has them."""

    def __init__(self, model: Model, tokens: int) -> None:
        random = Random(tokens)
        self.model = model
        self.tokens = tokens
        self.width = model.qk_nope_head_dim + model.qk_rope_head_dim
        self.scale = max(1, self.width) ** -0.5
        rows = (tokens, model.num_heads)
        self.q, self.k = (
            repeated_tensor(random, (*rows, self.width), model.dtype) for _ in range(2)
        )
        self.v = repeated_tensor(random, (*rows, model.v_head_dim), model.dtype)
        self.out = empty((*rows, model.v_head_dim), model.dtype)

    @property
    def flops(self) -> float:
        """Of what the mask leaves."""
        pairs = self.tokens * (self.tokens + 1) / 2
        return 2 * pairs * self.model.num_heads * (self.width + self.model.v_head_dim)


class Timing(NamedTuple):
    """Medians over the runs."""

    tokens: int
    flops: float
    seconds: float
    runs: int
    #: FLOP/s of the instruction at the time, all threads together; 0: not known.
    peak: float
    #: Of the instruction's rate; None: not known.
    fraction: float | None


def backend_of(model: Model) -> MLAPrefillBackendEnum:
    """
    Raises:
        ValueError: none serves it; the library's text.
    """
    return chosen_member(MLAPrefillConfig(dtype=model.dtype, **model.dimensions))


class LibrarySide:
    """The backend that the model gets, by its Python class."""

    name = "mla_prefill"

    def runs_of(self, prompt: Prompt) -> Callable[[], object]:
        """A run of it."""
        model = prompt.model
        backend = backend_of(model).get_class()(
            num_heads=model.num_heads, scale=prompt.scale, kv_lora_rank=512, **model.dimensions
        )
        backend.prepare_metadata(PrefillMetadata(query_start_loc=[0, prompt.tokens]))
        return lambda: backend.run_prefill_new_tokens(
            prompt.q, prompt.k, prompt.v, return_softmax_lse=False, out=prompt.out
        )


class TorchSide:
    """Its ``scaled_dot_product_attention``, without gradients."""

    name = "torch"

    def __init__(self, num_threads: int) -> None:
        self._torch = import_module("torch")
        self._torch.set_num_threads(num_threads)
        self.version = str(self._torch.__version__)

    @staticmethod
    def is_installed() -> bool:
        """Without importing it."""
        return find_spec("torch") is not None

    def runs_of(self, prompt: Prompt) -> Callable[[], object]:
        """A run of it on the same memory; values are as wide as queries, else it takes another,
        slower way."""
        torch = self._torch
        functional = torch.nn.functional
        q, k, v = (
            torch.from_dlpack(tensor).transpose(0, 1)[None]
            for tensor in (prompt.q, prompt.k, prompt.v)
        )
        v = functional.pad(v, (0, max(0, prompt.width - prompt.model.v_head_dim)))

        def attend() -> object:
            with torch.inference_mode():
                return functional.scaled_dot_product_attention(
                    q, k, v, is_causal=True, scale=prompt.scale
                )

        return attend


Side = LibrarySide | TorchSide


def measure(side: Side, prompt: Prompt, seconds: float) -> Timing:
    """Runs a side for about that long at most, at least once."""
    end = time.monotonic() + seconds
    dtype = _core.dtype_of_name(prompt.model.dtype)
    run = side.runs_of(prompt)
    # What a first run alone does is no part of any.
    count = max(1, round(_SHORTEST_SAMPLE / max(1e-9, min(_timed(run, 1), _timed(run, 1)))))
    times: list[float] = []
    peaks: list[float] = []
    fractions: list[float] = []
    with ThreadPoolExecutor(host.get_num_threads()) as threads:
        while not times or (len(times) < _MOST_SAMPLES and time.monotonic() < end):
            time.sleep(_SETTLING)
            before = _peak(threads, dtype)
            taken = _timed(run, count) / count
            peak = (before + _peak(threads, dtype)) / 2
            times.append(taken)
            peaks.append(peak)
            fractions.append(prompt.flops / taken / peak if peak else 0.0)
    return Timing(
        tokens=prompt.tokens,
        flops=prompt.flops,
        seconds=median(times),
        runs=len(times),
        peak=median(peaks),
        fraction=median(fractions) or None,
    )


def _timed(run: Callable[[], object], count: int) -> float:
    begin = time.perf_counter()
    for _ in range(count):
        run()
    return time.perf_counter() - begin


def _peak(threads: ThreadPoolExecutor, dtype: int) -> float:
    """FLOP/s of all of them at once."""
    rates = threads.map(
        lambda _: _core.instruction_rate(dtype, _PROBE)[1], range(host.get_num_threads())
    )
    return sum(rates)
