# SPDX-License-Identifier: Apache-2.0
"""A vLLM engine in a process of its own, driven by lines of JSON.

Run as a program it is the engine: it reads requests from its input and answers
on its output, each answer a line that begins with ``REPLY``; everything else is
vLLM's log. ``Engine`` is the other end.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import perf_counter
from typing import Any

import numpy as np

_REPLY = "REPLY "
_FOLDER = Path(__file__).resolve().parent


class Engine:
    """Starts the process; use it as a context.

    Args:
        model: the folder of a model.
        prefill: "plugin": as installed; "backend": its prefill backends alone, in
            vLLM's attention backend; "vllm": MLA_PREFILL_VLLM=0; "peer": vLLM
            with torch's fused attention for its prefill, on an AMX host with
            vLLM's own prefill backend instead of AMX_MLA's prefill.
        as_amx_host: whether vLLM is to believe that the CPU has AMX.
        environment: variables of the engine; by default one process without workers.
        options: keywords of ``vllm.LLM``.
    """

    def __init__(
        self,
        model: Path,
        prefill: str = "plugin",
        as_amx_host: bool = False,
        environment: dict[str, str] | None = None,
        **options: Any,
    ) -> None:
        settings = {
            "model": str(model),
            "prefill": prefill,
            "as_amx_host": as_amx_host,
            "options": options,
        }
        variables = {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            # Functions, not only names, may be sent to workers: ours.
            "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
            "HF_HUB_OFFLINE": "1",
            **({"MLA_PREFILL_VLLM": "0"} if prefill in ("vllm", "peer") else {}),
            **(environment or {}),
        }
        self.log: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | variables,
        )
        #: The API's, which may not be the workers'.
        self.process = self._process.pid

    def __enter__(self) -> "Engine":
        self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def generate(
        self, prompts: list[list[int]], max_tokens: int, adapter: Path | None = None
    ) -> tuple[list[list[int]], list[np.ndarray]]:
        """Greedy tokens of each prompt, and logits ``[max_tokens, vocabulary]``.

        Args:
            adapter: the folder of a LoRA, with ``enable_lora``.
        """
        lora = None if adapter is None else str(adapter)
        with NamedTemporaryFile(suffix=".npz") as file:
            tokens = self._ask(
                "generate", prompts=prompts, max_tokens=max_tokens, file=file.name, lora=lora
            )
            with np.load(file.name) as logits:
                return tokens, [logits[str(index)] for index in range(len(prompts))]

    def prefill(self, prompt: list[int], max_tokens: int = 1) -> dict[str, Any]:
        """Seconds that a prompt and its tokens take: in ``total``, in ``attention`` of
        prefill, and new tokens and seconds of each of its ``calls``, a layer each."""
        return self._ask("prefill", prompt=prompt, max_tokens=max_tokens)

    def update(self, how: str, model: Path) -> None:
        """Gives the running model the kv_b_proj of another, as `updates` says."""
        self._ask("update", how=how, model=str(model))

    def usage(self) -> list[dict[str, Any]]:
        """What each worker has counted since it was asked last."""
        return self._ask("usage")

    def facts(self) -> list[dict[str, Any]]:
        """Threads and classes of each worker."""
        return self._ask("facts")

    def _ask(self, call: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"call": call, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(_REPLY):
                return json.loads(line.removeprefix(_REPLY))
            self.log.append(line.rstrip())
        raise RuntimeError("the engine has ended:\n" + "\n".join(self.log[-60:]))


# What follows runs in the engine's process, or in its workers'.


def _take_usage(_worker: Any) -> dict[str, Any]:
    from dataclasses import asdict

    from mla_prefill import vllm_plugin

    usage = asdict(vllm_plugin.usage())
    vllm_plugin.reset_usage()
    return usage


def _take_attention(worker: Any) -> list[tuple[int, float]]:
    """New tokens and seconds of each prefill, layer by layer, since it was asked last; starts
    to listen when first asked."""
    layer = next(iter(worker.vllm_config.compilation_config.static_forward_context.values()))
    kind = type(layer.impl)
    if not hasattr(kind, "calls"):
        own = kind.forward_mha

        def forward_mha(self: Any, q: Any, *args: Any, **keywords: Any) -> None:
            start = perf_counter()
            own(self, q, *args, **keywords)
            kind.calls.append((q.shape[0], perf_counter() - start))

        kind.forward_mha, kind.calls = forward_mha, []
    calls, kind.calls = kind.calls, []
    return calls


def _facts(worker: Any) -> dict[str, Any]:
    import torch
    import vllm
    from mla_prefill import host

    context = worker.vllm_config.compilation_config.static_forward_context
    layer = next(iter(context.values()))
    tasks = Path("/proc/self/task")
    return {
        "process": os.getpid(),
        "version": vllm.__version__,
        "torch_threads": torch.get_num_threads(),
        "library_threads": host.get_num_threads(),
        "own_processors": sorted(os.sched_getaffinity(0)),
        "thread_processors": [
            sorted(os.sched_getaffinity(int(task.name))) for task in tasks.iterdir()
        ],
        "prefill_class": _path(type(layer.prefill_backend)),
        "attention_class": _path(type(layer.impl)),
        "algorithm": getattr(layer.impl, "_algorithm", None),
    }


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _start(settings: dict[str, Any]) -> Any:
    sys.path.insert(0, str(_FOLDER))
    if settings["as_amx_host"]:
        import amx_disguise

        amx_disguise.put_on(settings["prefill"])
    if settings["prefill"] == "backend":
        _give_back_attention()
    elif settings["prefill"] != "plugin":
        import peers

        is_peer = settings["prefill"] == "peer" and not settings["as_amx_host"]
        peers.count_other_prefill(torch_attention=is_peer)
    from vllm import LLM

    options = {
        **({} if settings["as_amx_host"] else {"attention_config": {"backend": "CPU_MLA"}}),
        "skip_tokenizer_init": True,
        "enforce_eager": True,
        "dtype": "bfloat16",
        "max_model_len": 4352,
        "max_num_batched_tokens": 4352,
        "enable_prefix_caching": False,
        # Logits of all tokens, as they come out of the model.
        "logprobs_mode": "raw_logits",
        "max_logprobs": -1,
    }
    return LLM(model=settings["model"], **(options | settings["options"]))


def _give_back_attention() -> None:
    from vllm.plugins import load_general_plugins
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    load_general_plugins()
    AttentionBackendEnum.CPU_MLA.clear_override()


def _generate(
    llm: Any, prompts: list[list[int]], max_tokens: int, file: str, lora: str | None
) -> list[list[int]]:
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    parameters = SamplingParams(
        temperature=0, max_tokens=max_tokens, ignore_eos=True, detokenize=False, logprobs=-1
    )
    requests = [{"prompt_token_ids": prompt} for prompt in prompts]
    adapter = LoRARequest("adapter", 1, lora) if lora else None
    finished = llm.generate(requests, parameters, use_tqdm=False, lora_request=adapter)
    results = [done.outputs[0] for done in finished]
    rows = {
        str(index): np.array(
            [[step[token].logprob for token in range(len(step))] for step in result.logprobs],
            np.float32,
        )
        for index, result in enumerate(results)
    }
    np.savez(file, **rows)
    return [list(result.token_ids) for result in results]


def _prefill(llm: Any, prompt: list[int], max_tokens: int) -> dict[str, float]:
    from vllm import SamplingParams

    llm.collective_rpc(_take_attention)
    parameters = SamplingParams(
        temperature=0, max_tokens=max_tokens, ignore_eos=True, detokenize=False
    )
    start = perf_counter()
    llm.generate([{"prompt_token_ids": prompt}], parameters, use_tqdm=False)
    total = perf_counter() - start
    (calls,) = llm.collective_rpc(_take_attention)
    return {"total": total, "attention": sum(seconds for _, seconds in calls), "calls": calls}


def _serve(llm: Any) -> None:
    import updates

    calls = {
        "update": lambda **arguments: llm.collective_rpc(updates.update, kwargs=arguments),
        "generate": lambda **arguments: _generate(llm, **arguments),
        "prefill": lambda **arguments: _prefill(llm, **arguments),
        "usage": lambda: llm.collective_rpc(_take_usage),
        "facts": lambda: llm.collective_rpc(_facts),
    }
    for line in sys.stdin:
        request = json.loads(line)
        print(_REPLY + json.dumps(calls[request.pop("call")](**request)), flush=True)


if __name__ == "__main__":
    engine = _start(json.loads(sys.argv[1]))
    print(_REPLY + "null", flush=True)
    _serve(engine)
