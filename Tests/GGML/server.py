"""llama-server answers ten requests at a time with the backend as it does without.

    server.py LLAMA_SERVER MODEL.gguf libggml-mla.so
"""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

REQUESTS, TOKENS = 10, 24
# Between logarithms of probabilities: q is rounded to the cache's type.
TOLERANCE = 5e-3
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def prompts():
    """Of any lengths; some are longer than a batch."""
    numbers = random.Random(1)
    return [[numbers.randrange(3, 131) for _ in range(numbers.randrange(40, 700))] for _ in range(REQUESTS)]


def answer(address, prompt):
    """Of each token the likeliest two, as pairs of number and logarithm, the token first."""
    body = {"prompt": prompt, "n_predict": TOKENS, "temperature": 0, "cache_prompt": False, "ignore_eos": True, "n_probs": 2}
    request = urllib.request.Request(f"{address}/completion", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with opener.open(request, timeout=120) as response:
        tokens = json.load(response)["completion_probabilities"]
    return [[(each["id"], each["logprob"]) for each in token["top_logprobs"]] for token in tokens]


def differs(expected, got):
    """Whether an answer is another one. Of two tokens that are as likely either may be taken."""
    for (first, second), (other, _) in zip(expected, got):
        if first[0] != other[0]:
            return other[0] != second[0] or first[1] - second[1] > TOLERANCE
        if abs(first[1] - other[1]) > TOLERANCE:
            return True
    return False


def wait_for(server, address):
    for _ in range(600):
        if server.poll() is not None:
            raise RuntimeError(f"llama-server ended with {server.returncode}")
        try:
            opener.open(f"{address}/health", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError("llama-server is not ready after a minute")


def answers(program, model, options, backend=None):
    """The tokens of all answers, what the server wrote, and its status at the end."""
    environment = {**os.environ, "MLA_VERBOSE": "1"}
    if backend:
        environment["GGML_BACKEND_PATH"] = backend
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [program, "-m", model, "--host", "127.0.0.1", "--port", str(port), "-t", "2", "-tb", "2", "-fa", "on",
               "-c", "8192", "-b", "512", "-ub", "256", "-np", str(REQUESTS), "--fit", "off",
               "-ot", "none=CPU", *options]
    log = os.path.splitext(model)[0] + ".log"
    with open(log, "wb") as output:
        server = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            wait_for(server, address)
            with ThreadPoolExecutor(REQUESTS) as threads:
                tokens = list(threads.map(lambda prompt: answer(address, prompt), prompts()))
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                status = server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                status = server.wait()
    with open(log, encoding="utf-8", errors="replace") as written:
        return tokens, written.read(), status


def check(name, program, model, backend, options):
    expected, _, _ = answers(program, model, options)
    tokens, log, status = answers(program, model, options, backend)
    served = re.search(r"mla: attention nodes: .*?(\d+) served", log)
    wrong = []
    if [len(each) for each in expected] != [TOKENS] * REQUESTS:
        wrong.append("answers without the backend are of other lengths")
    differing = sum(differs(*each) for each in zip(expected, tokens))
    if differing or len(tokens) != REQUESTS:
        wrong.append(f"{differing} answers differ")
    if not served:
        wrong.append("no node was served")
    if status != 0:
        wrong.append(f"the server ended with {status}")
    print("not ok" if wrong else "ok", f"llama-server, ten requests at a time, {name}:",
          ", ".join(wrong) or f"{served[1]} nodes served")
    return not wrong


def main():
    program, model, backend = sys.argv[1:]
    good = check("a stream each", program, model, backend, ["--no-kv-unified"])
    good &= check("one cache", program, model, backend, ["--kv-unified"])
    sys.exit(not good)


main()
