# SPDX-License-Identifier: Apache-2.0
"""Attention as it is defined, in double precision, by Python's own numbers: slow and plain."""

from collections.abc import Iterator, Sequence
from math import exp, fsum, isnan, log, nan
from operator import mul
from typing import NamedTuple

Rows = list[list[float]]


class Attention(NamedTuple):
    """Of one head: an output a query, and its log-sum-exp."""

    out: Rows
    lse: list[float]


def attend(queries: Rows, keys: Rows, values: Rows, scale: float) -> Attention:
    """Causal attention of one head of one request: the last query sees all keys, the one before
    it one less, and so on; each sees one."""
    result = Attention([], [])
    for seen, query in enumerate(queries, len(keys) - len(queries) + 1):
        scores = [scale * dot(query, key) for key in keys[:seen]]
        top = max(scores)
        weights = [exp(score - top) for score in scores]
        total = fsum(weights)
        columns = zip(*values[:seen], strict=True)
        result.out.append([dot(weights, column) / total for column in columns])
        result.lse.append(log(total) + top)
    return result


def dot(left: Sequence[float], right: Sequence[float]) -> float:
    """The sum of products."""
    return sum(map(mul, left, right))


def relative_error(found: Rows, expected: Rows) -> float:
    """The L2 norm of the difference, relative to that of what is expected; NaN where a number
    is none."""
    difference = fsum((a - b) ** 2 for a, b in _pairs(found, expected))
    return (difference / fsum(b**2 for _, b in _pairs(found, expected))) ** 0.5


def largest_error(found: Rows, expected: Rows) -> float:
    """The largest difference; NaN where a number is none."""
    differences = [abs(a - b) for a, b in _pairs(found, expected)]
    return nan if any(map(isnan, differences)) else max(differences)


def _pairs(found: Rows, expected: Rows) -> Iterator[tuple[float, float]]:
    for row, other in zip(found, expected, strict=True):
        yield from zip(row, other, strict=True)
