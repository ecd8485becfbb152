# SPDX-License-Identifier: Apache-2.0
"""Correctness on device 0, against float64.

    check.py real      sizes of engines
    check.py short     as many cases on few tokens
    check.py one       one small run of each kernel: for compute-sanitizer
"""

import sys
import time

import numpy as np
from caches import FORMATS, difference
from device import Backend, Tensor, capability, captured, driver, merge, prefill
from layers import LayerProblem
from problems import Problem, numbers
from tiles import IMAGE, TileBackend, are_there

DEEPSEEK, MISTRAL, GLM, GLM_NEXT = (128, 64, 128), (64, 64, 128), (192, 64, 256), (256, 0, 256)
#: By mode: heads, the longest request, requests of a batch of many.
SIZES = {"real": (128, 4096, 300), "short": (2, 150, 130), "one": (1, 70, 3)}


def say(name, wrong, began, problem=None):
    errors = f" (out {problem.errors[0]:.1e}, lse {problem.errors[1]:.1e})" if problem and not wrong else ""
    verdict = f"not ok {name}: {wrong}" if wrong else f"ok {name}{errors}"
    print(f"{verdict}, {time.monotonic() - began:.1f} s", flush=True)
    return 1 if wrong else 0


def attention(name, dims, queries, keys=None, heads=1, backend=None, **options):
    began = time.monotonic()
    problem = Problem(backend or Backend(heads, *dims), queries, keys, stream=driver.stream(), **options)
    problem.prepare()
    problem.run()
    return say(name, problem.check(), began, problem)


def shapes(mode):
    heads, longest, many = SIZES[mode]
    some = max(1, heads // 8)
    half, third = longest // 2 + 1, longest // 3
    failures = 0
    for dtype in ("bf16", "fp16"):
        failures += attention(f"new tokens, {dtype}", DEEPSEEK, [half, 1, 0, third, longest], heads=heads, dtype=dtype)
        failures += attention(
            f"context, {dtype}", DEEPSEEK, [third, 0, 65], [2 * longest, 9, half], heads=heads, dtype=dtype)
        for dims in (MISTRAL, GLM, GLM_NEXT):
            failures += attention(f"{dims}, {dtype}", dims, [half, 3], heads=some, dtype=dtype)
        failures += attention(
            f"odd strides and addresses, {dtype}", DEEPSEEK, [third, 5], heads=some, dtype=dtype, padding=1, shift=1)
        failures += attention(f"wide strides, {dtype}", DEEPSEEK, [third, 5], heads=some, dtype=dtype, padding=8)
    random = np.random.default_rng(2)
    lengths = random.integers(0, 40, many)
    failures += attention(f"{many} requests", DEEPSEEK, lengths, heads=some)
    failures += attention(f"{many} contexts", DEEPSEEK, lengths, random.integers(0, 200, many), heads=some)
    return failures


def tiles(mode):
    if not are_there(capability()):
        print(f"left out: the kernels of sm_90a, on another GPU or without {IMAGE}")
        return 0
    heads, longest, _ = SIZES[mode]
    half, third, failures = longest // 2 + 1, longest // 3, 0
    for dtype in ("bf16", "fp16"):
        for dims in (DEEPSEEK, MISTRAL):
            name, backend = f"tiles {dims}, {dtype}", TileBackend(heads, *dims, dtype)
            failures += attention(name, dims, [half, 1, 0, third, longest], backend=backend, dtype=dtype)
            failures += attention(f"{name}, context", dims, [third, 0, 65], [longest, 9, half], backend=backend, dtype=dtype)
            failures += attention(f"{name}, strided", dims, [third, 5], backend=backend, dtype=dtype, padding=8)
    return failures


def same_bits(mode):
    heads, longest, _ = SIZES[mode]
    began = time.monotonic()
    problem = Problem(Backend(heads, *DEEPSEEK), [longest // 2, 77], stream=driver.stream())
    problem.prepare()
    results = []
    for _ in range(3 if mode == "one" else 10):
        problem.tensors["out"].memory.clear(problem.stream)
        problem.run()
        results.append((problem.tensors["out"].download().tobytes(), problem.tensors["lse"].download().tobytes()))
    wrong = None if len(set(results)) == 1 else f"{len(set(results))} results of {len(results)} runs"
    return say("every run has the same bits", wrong, began)


def replay(mode):
    heads, longest, _ = SIZES[mode]
    began = time.monotonic()
    problem = Problem(Backend(heads, *DEEPSEEK), [longest // 2, 0, 33], stream=driver.stream())
    problem.prepare()
    launch = captured(problem.stream, problem.run)
    for seed in (1, 2):
        problem.renew(seed)
        launch()
        wrong = problem.check()
        if wrong:
            break
    return say("a graph's replays on other numbers", wrong, began, problem)


def two_streams(mode):
    heads, longest, _ = SIZES[mode]
    began = time.monotonic()
    problems = [
        Problem(Backend(heads, *DEEPSEEK), [longest // 2, 5], seed=seed, stream=driver.stream()) for seed in (1, 2)
    ]
    for problem in problems:
        problem.prepare()
    for _ in range(4):
        for problem in problems:
            problem.run()
    wrong = next(filter(None, [problem.check() for problem in problems]), None)
    return say("two streams", wrong, began, problems[0])


def merging(mode):
    heads, longest, _ = SIZES[mode]
    tokens = longest // 8 + 1
    began, stream, failures = time.monotonic(), driver.stream(), 0
    random = np.random.default_rng(4)
    for dtype in ("bf16", "fp16", "fp32"):
        hosts = [numbers(random, (tokens, heads, 128), dtype) for _ in range(2)]
        lses = [3 * random.standard_normal((heads, tokens), np.float32) for _ in range(2)]
        lses[0][0, 0] = -np.inf
        sides = [Tensor(dtype, host.shape, stream).upload(host) for host in hosts]
        side_lses = [Tensor("fp32", lse.shape, stream).upload(lse) for lse in lses]
        out, lse = Tensor(dtype, hosts[0].shape, stream), Tensor("fp32", lses[0].shape, stream)
        merge(stream, output=out, output_lse=lse, prefix_output=sides[0], prefix_lse=side_lses[0],
              suffix_output=sides[1], suffix_lse=side_lses[1])
        weights = [np.exp(each.astype(np.float64)).T[..., None] for each in lses]
        values = [prefill.as_float(host).astype(np.float64) for host in hosts]
        expected = (weights[0] * values[0] + weights[1] * values[1]) / (weights[0] + weights[1])
        error = np.abs(prefill.as_float(out.download()) - expected) / (np.abs(expected) + 1)
        worst = np.abs(lse.download() - np.log(weights[0] + weights[1])[..., 0].T).max()
        bound = {"bf16": 1 / 250, "fp16": 1 / 2000, "fp32": 1e-6}[dtype]
        wrong = None if error.max() <= bound and worst < 1e-5 else f"off by {error.max():.1e}, lse by {worst:.1e}"
        failures += say(f"merging, {dtype}", wrong, began)
    return failures


def caching(mode):
    _, longest, many = SIZES[mode]
    stream, failures = driver.stream(), 0
    lengths = [longest, 0, 1, longest // 3] + [65] * (many // 8)
    starts = [longest // 5, 0, 0, 64 if longest > 200 else 3] + [1] * (many // 8)
    for dtype in ("bf16", "fp16", "fp32"):
        for format in FORMATS:
            began = time.monotonic()
            wrong = difference(format, dtype, lengths, starts, stream)
            failures += say(f"caching {dtype} as {format} and gathering", wrong, began)
    return failures


#: By mode: heads, new tokens of each request, their contexts.
LAYERS = {
    "real": (16, [512, 1, 0, 130], [4096, 700, 9, 0]),
    "short": (2, [20, 1, 0, 70], [70, 9, 9, 0]),
    "one": (1, [9], [70]),
}


def layers(mode):
    heads, queries, contexts = LAYERS[mode]
    stream, failures = driver.stream(), 0
    for dtype in ("bf16", "fp16"):
        for format in FORMATS:
            began = time.monotonic()
            problem = LayerProblem(heads, queries, contexts, format, dtype, stream)
            problem.run()
            failures += say(f"a layer, {dtype} on a cache of {format}", problem.check(), began, problem)
    return failures


def fp8_value(bits):
    """e4m3fn."""
    exponent, fraction = bits >> 3 & 15, bits & 7
    size = np.where(exponent == 0, np.ldexp(fraction.astype(float), -9), np.ldexp(8.0 + fraction, exponent.astype(int) - 10))
    size = np.where(bits & 0x7F == 0x7F, np.nan, size)
    return np.where(bits & 0x80, -size, size)


def quantized(mode):
    heads, longest, _ = SIZES[mode]
    began, scale = time.monotonic(), 0.004
    problem = Problem(Backend(heads, *DEEPSEEK), [longest // 8, 9], stream=driver.stream())
    problem.prepare()
    # Of another dtype than q's as fp8 is: by the same engine.
    problem.tensors["out"] = Tensor("fp32", problem.tensors["out"].shape, problem.stream)
    problem.run()
    plain = problem.tensors["out"].download().astype(np.float64) / scale
    problem.tensors["out"] = out = Tensor("fp8", problem.tensors["out"].shape, problem.stream)
    problem.backend.run(problem.stream, output_scale=scale, **problem.tensors)
    right = np.clip(plain, -448, 448)
    error = np.abs(fp8_value(out.download()) - right) - (np.abs(right) * (1 / 16 + 1 / 256) + 1 / 1024)
    wrong = None if error.max() <= 0 else f"off by {error.max():.1e} more than rounding is"
    return say("fp8 outputs", wrong, began)


def main():
    mode = sys.argv[1]
    driver.call("cuInit", 0)
    with driver.device(0):
        checks = (shapes, tiles, same_bits, replay, two_streams, merging, caching, layers, quantized)
        failures = sum(check(mode) for check in checks)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
