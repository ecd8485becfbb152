# SPDX-License-Identifier: Apache-2.0
"""Files of vLLM's source distribution, fetched by way of pip's index when a test asks."""

import hashlib
import os
import re
import ssl
import subprocess
import sys
import tarfile
import urllib.parse
import urllib.request
from html import unescape
from pathlib import Path

VERSION = "0.33.0"
CACHE = Path(__file__).resolve().parents[2] / ".build-python" / "vllm"


def _pip_setting(name: str, default: str) -> str:
    """What pip would use: its environment, else its configuration."""
    variable = os.environ.get("PIP_" + name.upper().replace("-", "_"))
    if variable:
        return variable
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", f"global.{name}"],
        capture_output=True,
        text=True,
    )
    return asked.stdout.strip() if asked.returncode == 0 else default


def _default_index() -> str:
    """The index that pip uses unconfigured: only pip knows it."""
    asked = subprocess.run(
        [sys.executable, "-c", "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return asked.stdout.strip()


def _open(url: str):
    parts = urllib.parse.urlsplit(url)
    request = urllib.request.Request(parts._replace(netloc=parts.netloc.split("@")[-1]).geturl())
    if "@" in parts.netloc:
        from base64 import b64encode

        login = urllib.parse.unquote(parts.netloc.rsplit("@", 1)[0])
        token = b64encode(login.encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    context = ssl.create_default_context(cafile=_pip_setting("cert", "") or None)
    return urllib.request.urlopen(request, timeout=180, context=context)


def archive() -> Path:
    """The distribution itself."""
    path = CACHE / f"vllm-{VERSION}.tar.gz"
    if path.exists():
        return path
    CACHE.mkdir(parents=True, exist_ok=True)
    page_url = _pip_setting("index-url", _default_index()).rstrip("/") + "/vllm/"
    with _open(page_url) as page:
        links = re.findall(r'href="([^"]+)"', page.read().decode())
    link = next(unescape(link) for link in links if f"/{path.name}" in link)
    url, _, fragment = urllib.parse.urljoin(page_url, link).partition("#")
    with _open(url) as response:
        content = response.read()
    algorithm, _, digest = fragment.partition("=")
    if digest and hashlib.new(algorithm, content).hexdigest() != digest:
        raise ValueError(f"{url}: its {algorithm} is not the index's")
    # Another run may be reading the cache.
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(content)
    partial.rename(path)
    return path


def read(path: str) -> str:
    """The text of a file of the distribution."""
    cached = CACHE / path
    if not cached.exists():
        with tarfile.open(archive()) as distribution:
            text = distribution.extractfile(f"vllm-{VERSION}/{path}").read()
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.write_bytes(text)
    return cached.read_text()
