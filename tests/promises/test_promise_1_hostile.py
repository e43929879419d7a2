"""Promise 1 against a kernel that breaks every rule, in a process of its own, over real sockets."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
from collections import Counter
from pathlib import Path

import anyio
import psutil
import pytest

import anykernel
from anykernel import ConnectionInfo, ProtocolError, connect_kernel, open_kernel

HOSTILE = [sys.executable, str(Path(__file__).parent.parent / "helpers" / "hostile_kernel.py"), "{connection_file}"]

# Misdeed: what comes through in spite of it, and what is counted as dropped.
MISDEEDS = {
    "tampered": ("", {"signature": 1}),
    "unsigned": ("", {"signature": 1}),
    "replayed": ("once\n", {"repeated": 2}),
    "truncated": ("", {"shape": 5}),
    "oversized": ("", {"size": 1}),
    "deep": ("", {"json": 1}),
    "not json": ("", {"json": 1}),
    "not an object": ("", {"json": 1}),
    "not utf-8": ("broken \ufffd utf-8\n", {}),
    "surrogate": ("lone \ud800\n", {}),
    "nan": ("nan\n", {}),
    "no text": ("", {"content": 1}),
    "wrong types": (None, {"content": 2}),  # one of them clears the output
    "unknown parent": ("", {}),
    "rubbish": ("", {"shape": 1}),
}


async def test_every_misdeed_is_dropped_and_counted_and_what_follows_arrives():
    async with open_kernel(HOSTILE) as kernel:
        dropped = kernel._link.connection.router.transport.dropped
        for name, (text, counts) in MISDEEDS.items():
            before = dropped.copy()
            result = await kernel.execute(name)
            assert (result.ok, result.complete) == (True, True), name
            assert result.stdout == ("" if text is None else text) + "done", name
            # (The start asks twice what the kernel is; the second answer belongs to nobody any more.)
            assert dropped - before - Counter(unknown=1) == counts, name
            result.text.encode()
        everything = await kernel.execute("\n".join(MISDEEDS))
        assert everything.stdout.endswith("done")
        assert len(kernel._link.connection.router) == 0


async def test_missing_doubled_and_late_replies(monkeypatch):
    async with open_kernel(HOSTILE) as kernel:
        result = await kernel.execute("two replies")
        assert (result.ok, result.execution_count) == (True, 1)
        assert (await kernel.execute("reply after idle")).complete
        monkeypatch.setattr(anykernel._core.router, "GRACE", 0.2)
        with pytest.raises(ProtocolError, match="without a reply") as caught:
            await kernel.execute("no reply")
        assert caught.value.result.stdout == "done"
        result = await kernel.execute("no idle")
        assert (result.ok, result.complete, result.stdout) == (True, False, "done")
        assert len(kernel._link.connection.router) == 0


async def test_100_mb_in_one_message_is_cut_to_the_limit():
    async with open_kernel(HOSTILE, output_limit=2**20) as kernel:
        result = await kernel.execute("100 MB")
        assert result.truncated
        assert len(result.stdout) == 2**20
        assert result.stdout.endswith("done")


async def test_a_kernel_at_an_ipv6_address_is_connected_to(tmp_path):
    try:
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket(socket.AF_INET6)) for _ in range(5)]
            for sock in sockets:
                sock.bind(("::1", 0))
            ports = [sock.getsockname()[1] for sock in sockets]
    except OSError:
        pytest.skip("there is no IPv6 here")
    info, path = ConnectionInfo(*ports, ip="::1", key="secret"), tmp_path / "kernel.json"
    info.write(path)
    process = await anyio.open_process([*HOSTILE[:-1], str(path)])
    try:
        async with connect_kernel(path) as kernel:
            assert (await kernel.execute("")).stdout == "done"
            assert await kernel._link.connection.router.transport.beat(5)
    finally:
        process.kill()
        await process.aclose()


async def test_the_connection_file_has_a_name_by_which_jupyter_knows_connection_files():
    async with open_kernel(HOSTILE) as kernel:
        path = Path(psutil.Process(kernel.pid).cmdline()[-1])
        assert re.fullmatch(r"kernel-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.json", path.name)
