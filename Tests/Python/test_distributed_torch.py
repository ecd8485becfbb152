# SPDX-License-Identifier: Apache-2.0
"""A prompt that is spread over the ranks of a group."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import ranks
from reference import TYPES
from reference_layer import LayerProblem, relative

from mla_prefill import MLAPrefillLayer, set_num_threads
from mla_prefill.distributed import ContextParallelPrefill, PromptParts, shard


def problem_of(tokens, dtype="float32", **options):
    return LayerProblem([tokens], [0], dtype=dtype, **options)


def tensor(array):
    return torch.from_numpy(array.astype(np.float32)).to(getattr(torch, array.dtype.name))


def layer_for(problem, algorithm="up_projected", **options):
    return MLAPrefillLayer(
        **problem.dimensions, kv_b_proj=tensor(problem.kv_b_proj), algorithm=algorithm, **options
    )


def rows_of(problem, positions):
    return [tensor(x)[positions] for x in (problem.q, problem.kv_c_normed, problem.k_pe)]


def attend(rank, count, tokens, dtype, part_tokens, algorithm, options):
    """A rank's (out, lse, latents) as arrays."""
    set_num_threads(1 + rank % 2)
    problem = problem_of(tokens, dtype, **options)
    prefill = ContextParallelPrefill(layer_for(problem, algorithm), part_tokens=part_tokens)
    assert (prefill.rank, prefill.ranks) == (rank, count)
    positions = shard(tokens, rank, count, part_tokens)
    lse = torch.full((problem.heads, len(positions)), 7.0)
    latents = torch.full((tokens, problem.rank + problem.rope), torch.nan).to(
        getattr(torch, dtype)
    )
    for _ in range(2):  # A group serves one layer after the other.
        out = prefill.forward(
            *rows_of(problem, positions), tokens=tokens, lse=lse, latents=latents
        )
    assert out.dtype == getattr(torch, dtype)
    return out.double().numpy(), lse.numpy(), latents.double().numpy()


def spread(count, tokens, dtype="float32", part_tokens=None, algorithm="up_projected", **options):
    """The whole prompt's, from that many ranks."""
    problem = problem_of(tokens, dtype, **options)
    out = np.full((tokens, problem.heads, problem.value), np.nan)
    lse = np.full((problem.heads, tokens), np.nan, np.float32)
    results = ranks.run(count, attend, tokens, dtype, part_tokens, algorithm, options)
    for rank, result in enumerate(results):
        assert result is not None and len(result) == 3, result
        positions = shard(tokens, rank, count, part_tokens).numpy()
        out[positions], lse[:, positions] = result[:2]
        every = np.concatenate([problem.kv_c_normed, problem.k_pe], -1).astype(np.float64)
        assert np.array_equal(result[2], every)
    return problem, out, lse


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("dtype", TYPES)
def test_equals_one_rank_and_float64(dtype, count):
    problem, out, lse = spread(count, 523, dtype, part_tokens=48, algorithm="auto")
    problem.check(out, lse)
    whole = layer_for(problem, "auto").forward(*rows_of(problem, slice(None)))
    assert relative(out, whole.double().numpy()) <= {"float32": 1e-6, "float16": 1e-3}.get(
        dtype, 8e-3
    )


@pytest.mark.parametrize("tokens", [0, 1, 5, 64, 65, 200])
def test_few_tokens(tokens):
    """Ranks without any, a last part that is not full, parts in no whole number of rounds."""
    problem, out, lse = spread(4, tokens, part_tokens=16)
    problem.check(out, lse)


@pytest.mark.parametrize("dtype", TYPES)
def test_the_same_bits_for_any_number_of_ranks(dtype):
    """One rank's of this class, too; whatever the threads of each."""
    dimensions = {"heads": 3, "rank": 64, "nope": 32, "rope": 16, "value": 48}
    results = [spread(count, 1217, dtype, 100, **dimensions)[1:] for count in (1, 2, 3, 4)]
    for out, lse in results[1:]:
        assert np.array_equal(out, results[0][0])
        assert np.array_equal(lse, results[0][1])


def test_without_rope():
    problem = problem_of(100, rope=0)
    results = ranks.run(2, without_rope)
    out = np.empty((100, problem.heads, problem.value))
    for rank, result in enumerate(results):
        out[shard(100, rank, 2, 16).numpy()] = result
    problem.check(out)


def without_rope(rank, count):
    problem = problem_of(100, rope=0)
    prefill = ContextParallelPrefill(layer_for(problem), part_tokens=16)
    q, kv_c_normed, _ = rows_of(problem, shard(100, rank, count, 16))
    out = torch.full((2 * len(q), problem.heads, problem.value), 7.0)[::2]
    assert prefill.forward(q, kv_c_normed, None, 100, out=out) is out
    return out.numpy()


def test_parts_are_dealt_evenly():
    for tokens, count, part_tokens in ((8192, 4, 1024), (131072, 64, None), (65536, 32, None)):
        parts = PromptParts(tokens, count, part_tokens)
        pairs = [
            sum(len(parts.span(own)) * parts.span(own).stop for own in parts.of(rank))
            for rank in range(count)
        ]
        assert max(pairs) <= 1.02 * min(pairs)
        every = torch.cat([shard(tokens, rank, count, part_tokens) for rank in range(count)])
        assert torch.equal(every.sort().values, torch.arange(tokens))
    assert PromptParts(8192, 4, 1024).of(1) == [1, 6]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: PromptParts(-1, 2), "tokens = -1: must be at least 0"),
        (lambda: PromptParts(9, 0), "ranks = 0: must be at least 1"),
        (lambda: PromptParts(9, 2, 0), "part_tokens = 0: must be 1 to 1024"),
        (lambda: PromptParts(9, 2, 1025), "part_tokens = 1025: must be 1 to 1024"),
        (lambda: shard(9, 2, 2), "rank = 2: must be 0 to 1"),
    ],
)
def test_rules_of_parts(call, text):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == text


def disagree(rank, count, what):
    """Rank 1 breaks a rule; then all run a good call on the same group."""
    problem = problem_of(64)
    prefill = ContextParallelPrefill(layer_for(problem), part_tokens=8)
    arguments = dict(zip(("q", "kv_c_normed", "k_pe"), rows_of(problem, shard(64, rank, count, 8))))
    arguments["tokens"] = 64
    if rank == 1:
        if what == "tokens":
            arguments["tokens"] = 80
            arguments |= dict(
                zip(("q", "kv_c_normed", "k_pe"), rows_of(problem_of(80), shard(80, rank, count, 8)))
            )
        elif what == "rows":
            arguments["q"] = arguments["q"][1:]
        elif what == "part_tokens":
            prefill = ContextParallelPrefill(layer_for(problem), part_tokens=16)
            arguments |= dict(
                zip(("q", "kv_c_normed", "k_pe"), rows_of(problem, shard(64, rank, count, 16)))
            )
        elif what == "lse":
            arguments["lse"] = torch.empty(problem.heads, 15)
        elif what == "type":
            arguments["k_pe"] = arguments["k_pe"].numpy()
    start = monotonic()
    try:
        prefill.forward(**arguments)
        return "no error"
    except (ValueError, TypeError) as error:
        text = str(error)
    seconds = monotonic() - start
    assert seconds < 10, seconds
    if what == "rows":  # Nobody has begun: the group is as it was.
        good = dict(zip(("q", "kv_c_normed", "k_pe"), rows_of(problem, shard(64, rank, count, 8))))
        prefill.forward(**good, tokens=64)
    return text


@pytest.mark.parametrize(
    ("what", "texts"),
    [
        ("tokens", ("tokens = 64 on rank 0, 80 on rank 1: must be the same on all ranks", None)),
        ("part_tokens", ("part_tokens = 8 on rank 0, 16 on rank 1: must be the same", None)),
        ("rows", ("rank 1 has refused its arguments", "q.shape[0] = 15: must be 16")),
        ("lse", ("rank 1 has refused its arguments", "lse.shape[1] = 15: must be 16, the rank")),
        ("type", ("rank 1 has refused its arguments", "k_pe: is of type ndarray")),
    ],
)
def test_what_one_rank_does_wrong_all_are_told(what, texts):
    results = ranks.run(4, disagree, what)
    assert texts[0] in results[0]
    assert (texts[1] or "must be the same on all ranks") in results[1]
    assert all("no error" != result for result in results), results


def die(rank, count, when):
    problem = problem_of(64)
    layer = layer_for(problem)
    if rank == 2:
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        # In the ring, once all have agreed.
        from mla_prefill.distributed import ring

        ring.Ring._run = lambda self: os.kill(os.getpid(), signal.SIGKILL)
    prefill = ContextParallelPrefill(layer, part_tokens=8)
    start = monotonic()
    try:
        prefill.forward(*rows_of(problem, shard(64, rank, count, 8)), tokens=64)
    except RuntimeError as error:
        return str(error), monotonic() - start
    return "no error", monotonic() - start


@pytest.mark.parametrize("when", ["before", "in the ring"])
def test_a_rank_that_dies(when):
    """The others get an error within the group's timeout, those far from it too."""
    results = ranks.run(4, die, when, timeout=5.0)
    assert results[2] is None
    for rank in (0, 1, 3):
        text, seconds = results[rank]
        assert text.startswith(f"rank {rank} waits for"), text
        assert "a rank has ended" in text or "another rank has ended" in text
        assert seconds < 15


def late(rank, count):
    problem = problem_of(64)
    prefill = ContextParallelPrefill(layer_for(problem), part_tokens=8)
    rows = rows_of(problem, shard(64, rank, count, 8))
    if rank == 1:
        from time import sleep

        sleep(8)
        return "never called"
    start = monotonic()
    try:
        prefill.forward(*rows, tokens=64)
    except RuntimeError as error:
        return str(error), monotonic() - start
    return "no error", 0


def test_a_rank_that_does_not_answer():
    text, seconds = ranks.run(2, late, timeout=3.0)[0]
    assert "rank 0 waits for the others to begin" in text
    assert 2 < seconds < 8


def test_across_two_networks(tmp_path):
    """Two ranks in each of two network namespaces, as on two machines."""
    here = Path(__file__).parent
    script = here.parent / "Distributed" / "two_networks.sh"
    ran = subprocess.run(
        [script, sys.executable, here / "two_networks.py", tmp_path / "store"], capture_output=True, text=True,
        timeout=150,
    )  # fmt: skip
    if ran.returncode == 77:
        pytest.skip(ran.stdout.strip())
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len(re.findall("rank . has received", ran.stdout)) == 4, ran.stdout
