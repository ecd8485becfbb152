# SPDX-License-Identifier: Apache-2.0
"""Medians of event times on device 0, of the library, of its kernels for sm_90a, of torch's own
attention where torch is: one table.

    speed.py real|short [FILE]    what is measured goes to FILE as JSON, too
"""

import json
import statistics
import sys
import warnings

import numpy as np
from caches import speeds
from device import Backend, Tensor, capability, description, driver, milliseconds, prefill
from layers import layer_times
from problems import numbers, offsets
from tiles import TileBackend, are_there

#: By mode: heads, tokens of the requests, repeats, what is measured beside causal requests.
SIZES = {
    "real": (
        128, [2048, 4096, 8192, 16384, 32768], 20,
        [("16 x 1024", [1024] * 16, None), ("2048 on 32768", [2048], [32768])],
    ),
    "short": (2, [64, 130], 2, [("3 x 20", [20] * 3, None), ("20 on 70", [20], [70])]),
}
DIMS = (128, 64, 128)
BLOCK = 1999


def operations(backend, queries, keys):
    """Of the two products, those that a causal mask leaves."""
    pairs = sum(n * (n + 1) // 2 for n in queries) if keys is None else int(np.dot(queries, keys))
    return 2 * pairs * backend.heads * (backend.qk + backend.value)


def filled(dtype, shape, stream, seed):
    """Random rows, the same again and again."""
    rows, *rest = shape
    tensor = Tensor(dtype, shape, stream)
    block = numbers(np.random.default_rng(seed), (min(rows, BLOCK), *rest), dtype)
    row_bytes = block.nbytes // block.shape[0]
    driver.call("cuMemcpyHtoDAsync_v2", tensor.address, block.ctypes.data, block.nbytes, stream)
    driver.call("cuStreamSynchronize", stream)
    for row in range(block.shape[0], rows, block.shape[0]):
        size = min(block.shape[0], rows - row) * row_bytes
        driver.call("cuMemcpyDtoDAsync_v2", tensor.address + row * row_bytes, tensor.address, size, stream)
    return tensor


def ours(backend, queries, keys, repeats, dtype):
    stream, heads = driver.stream(), backend.heads
    rows, columns = sum(queries), sum(keys or queries)
    tensors = {
        "q": filled(dtype, (rows, heads, backend.qk), stream, 1),
        "k": filled(dtype, (columns, heads, backend.qk), stream, 2),
        "v": filled(dtype, (columns, heads, backend.value), stream, 3),
        "out": Tensor(dtype, (rows, heads, backend.value), stream),
        "lse": Tensor("fp32", (heads, rows), stream),
    }
    backend.prepare(offsets(queries), None if keys is None else offsets(keys))
    times = milliseconds(stream, lambda: backend.run(stream, **tensors), repeats)
    return statistics.median(times)


def torch_attention(heads, queries, keys, repeats, dtype):
    """The quickest that torch has for one request, and which; None: no torch, or several."""
    try:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError:
        return None
    if len(queries) > 1 or not torch.cuda.is_available():
        return None
    kind = torch.bfloat16 if dtype == "bf16" else torch.float16
    q, k, v = (
        torch.randn(1, rows, heads, width, dtype=kind, device="cuda").transpose(1, 2)
        for rows, width in ((queries[0], 192), ((keys or queries)[0], 192), ((keys or queries)[0], 128))
    )
    # Of what it does not do, torch tells at length.
    warnings.simplefilter("ignore")
    # FlashAttention's wants values as wide as keys.
    wide = torch.nn.functional.pad(v, (0, 64))
    found = []
    ways = (("CUDNN", v), ("CUDNN", wide), ("FLASH", wide), ("EFFICIENT", v))
    for name, values in ways:
        try:
            with sdpa_kernel(getattr(SDPBackend, f"{name}_ATTENTION")):
                times = _torch_times(torch, q, k, values, keys is None, repeats)
            found.append((statistics.median(times), name.lower() + (", v padded" if values is wide else "")))
        except RuntimeError:
            continue
    return min(found, default=None)


def _torch_times(torch, q, k, v, causal, repeats):
    attend = torch.nn.functional.scaled_dot_product_attention
    for _ in range(2):
        attend(q, k, v, is_causal=causal)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    events[0].record()
    for event in events[1:]:
        attend(q, k, v, is_causal=causal)
        event.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in zip(events, events[1:], strict=False)]


def measured(mode):
    heads, lengths, repeats, others = SIZES[mode]
    cases = [(f"{length} causal", [length], None) for length in lengths] + others
    for dtype in ("bf16", "fp16") if mode == "short" else ("bf16",):
        for name, queries, keys in cases:
            backend = Backend(heads, *DIMS)
            work = operations(backend, queries, keys) / 1e9
            time, by_tiles = ours(backend, queries, keys, repeats, dtype), None
            if are_there(capability()):
                by_tiles = ours(TileBackend(heads, *DIMS, dtype), queries, keys, repeats, dtype)
            peer = torch_attention(heads, queries, keys, repeats, dtype) or (None, "")
            yield {
                "case": f"{name}, {dtype}", "ms": time, "TFLOP/s": work / time, "sm_90a ms": by_tiles,
                "sm_90a TFLOP/s": by_tiles and work / by_tiles, "torch ms": peer[0],
                "torch TFLOP/s": peer[0] and work / peer[0], "torch": peer[1],
            }


#: By mode: heads, new tokens, context.
LAYERS = {"real": [(16, 512, 4096), (128, 512, 4096), (128, 2048, 16384)], "short": [(2, 20, 70)]}


def layers_measured(mode):
    """Lines that tell what a layer takes, and what the attention to all of its keys alone does."""
    repeats = SIZES[mode][2]
    for heads, new, context in LAYERS[mode]:
        alone = ours(Backend(heads, *DIMS), [new], [context + new], repeats, "bf16")
        times = layer_times(heads, [new], [context], ("bf16", "fp8_ds_mla"), driver.stream(), repeats)
        cells = ", ".join(f"{format} {time:.3f} ms" for format, time in times)
        yield f"layer of {heads} heads, {new} on {context}: {cells}; its attention alone, unmasked: {alone:.3f} ms"


def cell(number, width):
    return f"{'-' if number is None else f'{number:.3f}' if width > 8 else f'{number:.1f}':>{width}}"


def main():
    mode, *file = sys.argv[1:]
    rows = []
    print(description())
    print(f"library {prefill.LIBRARY.mla_version().decode()}, {SIZES[mode][0]} heads of 192 and 128")
    print(f"{'tokens':>24} {'ms':>9} {'TFLOP/s':>8}   {'sm_90a':>9} {'':>8}   {'torch':>9}")
    with driver.device(0):
        for row in measured(mode):
            rows.append(row)
            sides = (f"{cell(row[f'{side}ms'], 9)} {cell(row[f'{side}TFLOP/s'], 8)}" for side in ("", "sm_90a ", "torch "))
            print(f"{row['case']:>24} {'   '.join(sides)}  {row['torch']}", flush=True)
        for line in (*layers_measured(mode), *speeds(max(SIZES[mode][1]), driver.stream(), SIZES[mode][2])):
            print(line, flush=True)
    if file:
        with open(file[0], "w", encoding="utf-8") as out:
            json.dump({"device": description(), "rows": rows}, out, indent=1)


if __name__ == "__main__":
    main()
