"""Recordings of real kernels, and their replay on every event loop."""

from __future__ import annotations

import base64
import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import anyio
import pytest
from jupyter_client.kernelspec import KernelSpec

from anykernel import (
    ArgumentError,
    ConnectionClosedError,
    ExecutionTimeoutError,
    KernelDiedError,
    KernelRestartedError,
    KernelStartError,
    ReplayError,
    connect_kernel,
    open_kernel,
    replay_kernel,
)
from anykernel._transports import recording as record_module

from ..helpers.zoo import installed

PASSWORD = "correct horse battery"
LATE = """
import threading
go = threading.Event()
def late():
    go.wait()
    print("late", flush=True)
thread = threading.Thread(target=late)
thread.start()
"""


def summary(result):
    # The kernel writes the addresses of objects, which are recorded with the rest.
    return [result.to_nbformat(), result.status, result.text, result.complete, result.execution_count]


async def session(kernel):
    """What a user might do, in a session with everything that is awkward; returns what came of it."""
    seen = {"connection": kernel.info.implementation}

    async def run(i):
        seen[f"task {i}"] = summary(
            await kernel.execute(f"print({i}); display({{'text/plain': 'd{i}'}}, raw=True); {i}")
        )

    async with anyio.create_task_group() as tasks:
        for i in range(8):
            tasks.start_soon(run, i)
    # Equal requests are answered in their order.
    await kernel.execute("n = 0")
    seen["equal"] = [(await kernel.execute("n += 1; n")).text for _ in range(3)]
    seen["error"] = summary(await kernel.execute("print('before'); 1 / 0"))
    answers = {"name: ": "Ada", "password: ": PASSWORD}
    asked = "from getpass import getpass\nname, secret = input('name: '), getpass('password: ')\nname, len(secret)"
    seen["stdin"] = summary(await kernel.execute(asked, stdin=lambda prompt, password: answers[prompt]))
    seen["evaluate"] = await kernel.evaluate("name * 2")
    seen["complete"] = (await kernel.complete("prin")).matches

    with pytest.raises(ExecutionTimeoutError) as timeout:
        await kernel.execute("print('started', flush=True)\nwhile True: pass", timeout=0.3)
    seen["timeout"] = [*summary(timeout.value.result), timeout.value.settled]
    seen["after"] = summary(await kernel.execute("print('free again')"))

    shown = await kernel.execute("h = display({'text/plain': 'old'}, raw=True, display_id=True)")
    await kernel.execute("h.update({'text/plain': 'new'}, raw=True)")
    seen["updated"] = summary(shown)

    async with kernel.messages("stream", "comm_msg") as messages:
        await kernel.execute(LATE)
        await kernel.execute("go.set(); thread.join()")
        seen["late"] = (await messages.receive()).content["text"]
        await kernel.execute(
            "from comm import create_comm\n"
            "comm = create_comm(target_name='t', comm_id='c')\n"
            "comm.send({'x': float('nan')}, buffers=[b'\\0\\xff', memoryview(b'abc')])"
        )
        message = await messages.receive()
        seen["comm"] = [repr(message.content), [bytes(buffer) for buffer in message.buffers]]

    running = await kernel.submit("print('running', flush=True); import time; time.sleep(60)")
    async for _ in running:
        break
    await kernel.restart()
    with pytest.raises(KernelRestartedError) as restarted:
        await running.wait()
    seen["restarted"] = summary(restarted.value.result)
    seen["forgotten"] = summary(await kernel.execute("name"))

    with pytest.raises(KernelDiedError) as died:
        await kernel.execute("import os, sys; print('last words', flush=True); os.write(2, b'Argh'); os._exit(3)")
    error = died.value
    seen["died"] = [str(error), error.returncode, error.stderr, error.result.text, kernel.returncode, kernel.is_alive]
    return seen


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A recording of `session`, what came of it, and the keys of its connections."""
    path = tmp_path_factory.mktemp("recordings") / "session.jsonl"

    async def record():
        async with open_kernel(record_to=path) as kernel:
            first = kernel.connection
            seen = await session(kernel)
            return seen, [first, kernel.connection]

    seen, connections = anyio.run(record)
    return path, seen, connections


def lines_of(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


async def test_a_session_is_replayed_as_it_was(recording):
    path, seen, _ = recording
    async with replay_kernel(path) as kernel:
        again = await session(kernel)
    assert again == seen
    assert again["timeout"][2].startswith("started")
    assert again["restarted"][2] == "running\n"
    assert again["died"][1] == 3
    assert "Argh" in again["died"][2]


def test_a_recording_has_no_secrets_and_only_its_owner_can_read_it(recording):
    path, _, connections = recording
    text = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in text
    for info in connections:
        for secret in (info.key, info.curve_secretkey):
            assert secret
            assert secret not in text
    (masked,) = [line for line in lines_of(path) if line.get("masked")]
    assert masked["content"] == {"value": "********"}


def test_a_recording_tells_what_went_over_in_which_order(recording):
    head, *lines = lines_of(recording[0])
    assert head["format"] == "anykernel recording"
    assert (head["version"], head["anykernel"]) == (1, "0.1.0")
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    events = [line["event"] for line in lines]
    assert [event for event in events if event not in ("sent", "received")] == [
        "connected", "interrupted", "connected", "died", "closed",
    ]  # fmt: skip
    (sent,) = [
        i
        for i, line in enumerate(lines)
        if "while True" in line.get("content", {}).get("code", "") and line["event"] == "sent"
    ]
    caused = [line for line in lines if line.get("parent_header", {}).get("msg_id") == lines[sent]["header"]["msg_id"]]
    assert lines.index(caused[0]) > sent
    assert caused[0]["content"] == {"execution_state": "busy"}


async def test_a_recording_that_was_cut_off_is_replayed_as_far_as_it_goes(recording, tmp_path):
    text = recording[0].read_bytes()
    cut = tmp_path / "cut.jsonl"
    # In the middle of the line that says that the first cell is over.
    cut.write_bytes(text[: text.index(b"free again") + 150])
    async with replay_kernel(cut) as kernel:
        with pytest.raises(ReplayError, match="cut off"):
            await session(kernel)
        assert not kernel.is_alive
        with pytest.raises(ReplayError, match="cut off"):
            await kernel.complete("x")


@pytest.mark.parametrize("lines", [0, 1, 2, 3, 6])
async def test_a_recording_that_was_cut_off_before_the_kernel_was_ready_is_refused(recording, tmp_path, lines):
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(b"".join(recording[0].read_bytes().splitlines(keepends=True)[:lines]))
    with pytest.raises(KernelStartError if lines else ReplayError):
        async with replay_kernel(cut):
            raise AssertionError


async def test_what_a_recording_does_not_have_is_an_error(recording):
    async with replay_kernel(recording[0]) as kernel:
        with pytest.raises(
            ReplayError, match=r"no \(further\) execute_request on shell with 'other code'; of this type"
        ):
            await kernel.execute("other code")
        with pytest.raises(ReplayError, match="no more of this type"):
            await kernel.inspect("x")
        with pytest.raises(ReplayError, match="no more of this type"):
            await kernel.request("debug_request", {}, channel="control")
        await kernel.execute("n = 0")  # what it has still works
        for _ in range(3):
            await kernel.execute("n += 1; n")
        with pytest.raises(ReplayError):
            await kernel.execute("n += 1; n")
        await kernel.interrupt()  # nothing runs
        for _ in range(3):
            assert (await kernel.kernel_info()).implementation == "ipython"
        await kernel.restart()
        with pytest.raises(KernelStartError, match="no further start"):
            await kernel.restart()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"version":1', b'"version":2', "version 2"),
        (b"anykernel recording", b"something else", "is no recording"),
        (b'"event":"connected"', b'"event":"cnnected"', "damaged in line 2"),
        (b'"msg_type":"kernel_info_request"', b'"msg_typ":1', "damaged in line"),
        (b"\n{", b"\n[", "damaged in line 2"),
        (b"{", b"", "is no recording"),
    ],
)
async def test_a_file_that_is_no_good_recording_is_refused(recording, tmp_path, old, new, said):
    tampered = tmp_path / "tampered.jsonl"
    tampered.write_bytes(recording[0].read_bytes().replace(old, new, 1))
    with pytest.raises(ReplayError, match=said):
        async with replay_kernel(tampered):
            raise AssertionError


@pytest.mark.parametrize("by", [-3, 1, 12])
async def test_a_line_that_was_moved_or_repeated_is_refused(recording, tmp_path, by):
    # Without its answers behind it, the request would wait for them for ever.
    lines = recording[0].read_bytes().splitlines(keepends=True)
    (place, *_) = [i for i, line in enumerate(lines) if b"execute_request" in line and b'"sent"' in line]
    line = lines[place]
    for kept in (lines, [*lines[:place], *lines[place + 1 :]]):
        tampered = tmp_path / "tampered.jsonl"
        tampered.write_bytes(b"".join([*kept[: place + by], line, *kept[place + by :]]))
        with pytest.raises(ReplayError, match=r"damaged in line \d+: it is not where it was written"):
            async with replay_kernel(tampered):
                raise AssertionError


async def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ReplayError, match="No such file"):
        async with replay_kernel(tmp_path / "none.jsonl"):
            raise AssertionError


async def test_a_recording_is_never_written_over_a_file(tmp_path):
    path = tmp_path / "precious"
    path.write_text("x")
    for target, said in (
        (path, "File exists"),
        (tmp_path / "none" / "x", "No such file"),
        (3.5, "float"),
        ("\0", "null"),
    ):
        with pytest.raises(ArgumentError, match=f"cannot record to.*{said}"):
            async with open_kernel(record_to=target):
                raise AssertionError
    assert path.read_text() == "x"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
async def test_a_write_that_fails_ends_the_recording_and_not_the_kernels_work(tmp_path, monkeypatch, caplog):
    path = tmp_path / "full.jsonl"
    async with open_kernel(record_to=path) as kernel:
        await kernel.execute("x = 1")
        full = os.open("/dev/full", os.O_WRONLY)
        write = os.write
        monkeypatch.setattr(record_module.os, "write", lambda _, data: write(full, data))
        assert await kernel.evaluate("x") == 1
        monkeypatch.undo()
        os.close(full)
        assert await kernel.evaluate("x") == 1
    (said,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "the kernel goes on" in said.message
    assert os.strerror(errno.ENOSPC) in said.message
    async with replay_kernel(path) as kernel:
        assert (await kernel.execute("x = 1")).ok


def test_a_client_that_is_killed_leaves_a_recording(tmp_path):
    path = tmp_path / "killed.jsonl"
    program = """
        import os, signal, sys, anyio
        from anykernel import open_kernel
        async def main():
            async with open_kernel(record_to=sys.argv[1]) as kernel:
                await kernel.execute("print('kept')")
                os.kill(os.getpid(), signal.SIGKILL)
        anyio.run(main)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(path)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL

    async def replay():
        async with replay_kernel(path) as kernel:
            assert (await kernel.execute("print('kept')")).text == "kept\n"
            with pytest.raises(ReplayError, match="was cut off"):
                await kernel.execute("more")

    anyio.run(replay)


@pytest.mark.parametrize("name", ["xeus-python", "bash_kernel", "async-kernel"])
def test_other_kernels_are_replayed(name, tmp_path):
    case = installed(name)
    path = tmp_path / "other.jsonl"

    async def use(kernel):
        seen = [summary(await kernel.execute(case.code[code])) for code in ("print", "error")]
        if case.interruptible:
            with pytest.raises(ExecutionTimeoutError) as caught:
                await kernel.execute(case.code["sleep"], timeout=0.3)
            seen.append(caught.value.settled)
        return [*seen, summary(await kernel.execute(case.code["print"]))]

    async def both():
        async with case.open(record_to=path) as kernel:
            seen = await use(kernel)
        async with replay_kernel(path) as kernel:
            assert await use(kernel) == seen

    anyio.run(both)


def test_a_connected_kernel_is_recorded_without_its_key_and_interrupted_by_message(tmp_path):
    path = tmp_path / "connected.jsonl"

    async def use(kernel):
        with pytest.raises(ExecutionTimeoutError) as caught:
            await kernel.execute("import time; time.sleep(60)", timeout=0.3)
        # Somebody prints the key.
        return caught.value.settled, (await kernel.execute("%connect_info")).ok

    async def both():
        async with open_kernel() as kernel:
            async with connect_kernel(kernel.connection, record_to=path) as other:
                seen = await use(other)
            key = kernel.connection.key
        assert key not in path.read_text()
        assert "********" in path.read_text()
        async with replay_kernel(path) as replayed:
            assert await use(replayed) == seen == (True, True)

    anyio.run(both)


def test_a_kernel_that_does_not_start_is_replayed(tmp_path):
    path = tmp_path / "failed.jsonl"
    spec = KernelSpec(argv=[sys.executable, "-c", "import sys; sys.exit('no: {connection_file}')"])

    async def both():
        errors = []
        for opened in (open_kernel(spec, record_to=path), replay_kernel(path)):
            with pytest.raises(KernelStartError) as caught:
                async with opened:
                    raise AssertionError
            errors.append((str(caught.value), caught.value.returncode, caught.value.stderr))
        assert errors[0] == errors[1]
        assert re.search("status 1 before it was ready", errors[0][0])

    anyio.run(both)


def test_keys_are_blotted_out_in_buffers_as_well_and_values_can_still_be_read(tmp_path):
    path = tmp_path / "buffers.jsonl"

    async def use(kernel, key):
        # Somebody sends the key, and reads it with other values.
        await kernel.push(info={"before": [1, 2], "key": key, "after": b"x"})
        return await kernel.pull("info")

    async def both():
        async with open_kernel(record_to=path) as kernel:
            key = kernel.connection.key
            seen = await use(kernel, key)
        buffers = b"".join(base64.b64decode(buffer) for line in lines_of(path) for buffer in line.get("buffers", ()))
        assert key.encode() not in buffers
        assert seen == {"before": [1, 2], "key": key, "after": b"x"}
        async with replay_kernel(path) as kernel:
            mask = "*" * len(key)
            assert await use(kernel, mask) == {**seen, "key": mask}

    anyio.run(both)


async def use_subshells(kernel):
    """Code in subshells that is interrupted: by a timeout, by a call, and as its subshell is left."""
    code, seen = "print('runs', flush=True)\nwhile True: pass", []
    async with kernel.subshell() as subshell:
        with pytest.raises(ExecutionTimeoutError) as timeout:
            await subshell.execute(code, timeout=1)
        seen += [*summary(timeout.value.result), timeout.value.settled]
        running = await subshell.submit(code)
        async for _ in running:
            break
        await subshell.interrupt()
        seen += summary(await running.wait())
        seen += summary(await subshell.execute("print('free again')"))
        running = await subshell.submit(code)
        async for _ in running:
            break
    with pytest.raises(ConnectionClosedError, match="deleted") as left:
        await running.wait()
    return [*seen, *summary(left.value.result), (await kernel.execute("print('main')")).text]


@pytest.fixture(scope="module")
def subshells(tmp_path_factory):
    path = tmp_path_factory.mktemp("recordings") / "subshells.jsonl"

    async def record():
        async with open_kernel(record_to=path) as kernel:
            return await use_subshells(kernel)

    return path, anyio.run(record)


async def test_interrupts_of_subshells_are_replayed(subshells):
    path, seen = subshells
    async with replay_kernel(path) as kernel:
        assert await use_subshells(kernel) == seen
