# SPDX-License-Identifier: Apache-2.0
"""Whether two engines say the same.

Random weights leave many near ties, where logits of bf16 are equal or a rounding
apart; engines that agree about the logits may then choose different tokens, and
from there on have different prompts.
"""

from collections.abc import Callable

import numpy as np

#: Of logits of 4 rms, as measured between vLLM's own attentions, of which each rounds
#: in its own way: 0.031 to 0.035.
PEERS_DIFFER_BY = 0.035

Generated = tuple[list[list[int]], list[np.ndarray]]


def same_steps(first: list[int], second: list[int]) -> int:
    """Steps before the first differing token."""
    pairs = zip(first, second, strict=True)
    return next((step for step, (a, b) in enumerate(pairs) if a != b), len(first))


def differences(first: Generated, second: Generated) -> np.ndarray:
    """Differences of all logits of steps that had the same prompt, the first
    differing step included: ``[steps, vocabulary]``."""
    rows = []
    for tokens, others, logits, other_logits in zip(*_sides(first, second), strict=True):
        steps = min(same_steps(tokens, others) + 1, len(tokens))
        rows.append(logits[:steps] - other_logits[:steps])
    return np.concatenate(rows)


def report(name: str, first: Generated, second: Generated) -> str:
    steps = [same_steps(a, b) for a, b in zip(first[0], second[0], strict=True)]
    difference = differences(first, second)
    return (
        f"{name}: same tokens {steps} of {[len(tokens) for tokens in first[0]]}, logits differ by "
        f"{np.abs(difference).max():.3f} at most, {_root_mean_square(difference):.4f} rms, "
        f"of {first[1][0].std():.2f} rms"
    )


def assert_same(
    ours: Generated, reference: Generated, spread: Callable[[], tuple[Generated, Generated]]
) -> None:
    """The same tokens, or logits as close as another attention's; and close in any case.

    Args:
        spread: gives what another attention and vLLM's make of the prompts. It starts an
            engine: only asked where tokens differ.
    """
    print()
    print(report("plug-in against vLLM", ours, reference))
    difference = differences(ours, reference)
    assert _root_mean_square(difference) <= 1.5 * PEERS_DIFFER_BY
    if ours[0] == reference[0]:
        return
    peer, vllm = spread()
    print(report("peer against vLLM", peer, vllm))
    allowed = differences(peer, vllm)
    assert np.abs(difference).max() <= 1.5 * np.abs(allowed).max()
    assert _root_mean_square(difference) <= 1.25 * _root_mean_square(allowed)


def _sides(first: Generated, second: Generated) -> tuple:
    return first[0], second[0], first[1], second[1]


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
