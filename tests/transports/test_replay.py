"""Replays of recordings that are written by hand, or used in another order than they were recorded."""

from __future__ import annotations

import json
import math
import random
import sys

import anyio
import anyio.to_thread
import pytest

from anykernel import (
    ExecutionTimeoutError,
    KernelDiedError,
    KernelStartTimeoutError,
    Message,
    ReplayError,
    StdinError,
    UnsupportedError,
    open_kernel,
    replay_kernel,
)
from anykernel._transports import replay as _replay

from ..helpers.scripted import INFO

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


class Recording:
    """Writes a recording line by line."""

    def __init__(self, path) -> None:
        self.path = path
        self.lines = [{"format": "anykernel recording", "version": 1}]

    def line(self, event, **fields):
        self.lines.append({"event": event, "time": len(self.lines), **fields})
        self.write()

    def write(self):
        self.path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))

    def connect(self):
        self.line("connected")
        for channel in ("shell", "control"):
            request = self.sent("kernel_info_request", channel=channel)
            self.status(request, "busy")
            self.received(request, "kernel_info_reply", channel=channel, **INFO)
            self.status(request, "idle")

    def sent(self, msg_type, *, channel="shell", parent=None, subshell=None, **content):
        header = {"msg_id": f"sent-{len(self.lines)}", "msg_type": msg_type, "session": "recorded"}
        if subshell is not None:
            header["subshell_id"] = subshell
        self.line("sent", channel=channel, header=header, parent_header=parent or {}, content=content)
        return header

    def received(self, parent, msg_type, *, channel="iopub", **content):
        header = {"msg_id": f"received-{len(self.lines)}", "msg_type": msg_type, "session": "kernel"}
        self.line("received", channel=channel, header=header, parent_header=parent or {}, content=content)
        return header

    def status(self, parent, state):
        self.received(parent, "status", execution_state=state)

    def out(self, parent, text):
        self.received(parent, "stream", name="stdout", text=text)

    def start(self, code, *, allow_stdin=False, **fields):
        request = self.sent(
            "execute_request", code=code, silent=False, store_history=True, user_expressions={},
            allow_stdin=allow_stdin, stop_on_error=False, **fields,
        )  # fmt: skip
        self.status(request, "busy")
        return request

    def finish(self, request, **content):
        reply = request["msg_type"].replace("request", "reply")
        self.received(request, reply, channel="shell", status="ok", **content)
        self.status(request, "idle")

    def cell(self, code):
        request = self.start(code)
        self.out(request, f"{code}\n")
        self.finish(request)
        return request


@pytest.fixture
def recording(tmp_path):
    recording = Recording(tmp_path / "recording.jsonl")
    recording.connect()
    return recording


def record_interleaved(recording):
    """A cell that goes on when the client has asked for something else."""
    cell = recording.start("cell")
    recording.out(cell, "1")
    asked = recording.sent("debug_request", channel="control", command="x")
    recording.received(asked, "debug_reply", channel="control", status="ok")
    recording.out(cell, "2")
    recording.finish(cell)
    recording.line("closed")


async def test_what_the_client_sent_meanwhile_keeps_its_place(recording, monkeypatch):
    record_interleaved(recording)
    monkeypatch.setattr(_replay, "PATIENCE", math.inf)
    async with replay_kernel(recording.path) as kernel:
        cell = await kernel.submit("cell")
        async for output in cell:
            assert output.text == "1"
            break
        await anyio.wait_all_tasks_blocked()
        assert cell.result.text == "1"
        assert cell.state == "running"
        await kernel.request("debug_request", {"command": "x"}, channel="control")
        assert (await cell.wait()).text == "12"


async def test_a_replay_of_another_event_loop_cannot_be_used(recording):
    recording.cell("cell")
    recording.line("closed")
    async with replay_kernel(recording.path) as kernel:

        async def use():
            with anyio.fail_after(5):
                for call in (lambda: kernel.execute("cell"), kernel.interrupt, kernel.restart, kernel.shutdown):
                    with pytest.raises(UnsupportedError, match="from_thread"):
                        await call()

        await anyio.to_thread.run_sync(anyio.run, use)
        assert (await kernel.execute("cell")).text == "cell\n"


async def test_what_the_client_does_not_send_meanwhile_is_not_waited_for_long(recording):
    record_interleaved(recording)
    async with replay_kernel(recording.path) as kernel:
        assert (await kernel.execute("cell")).text == "12"
        assert (await kernel.request("debug_request", {"command": "x"}, channel="control")).content == {"status": "ok"}


async def test_output_of_nobodys_follows_what_came_before_it(recording):
    first = recording.cell("first")
    second = recording.start("second")
    recording.out(first, "late")
    recording.out({}, "unparented")
    recording.out({"msg_id": "x", "session": "other"}, "another client's")
    recording.status({"msg_id": "x", "session": "other"}, "idle")
    recording.out(second, "own")
    recording.finish(second)
    recording.line("closed")
    async with replay_kernel(recording.path) as kernel, kernel.messages("stream") as messages:
        ids = [(await kernel.execute(code)).msg_id for code in ("first", "second")]
        received = [await messages.receive() for _ in range(5)]
        parents = [message.parent_header.get("msg_id") for message in received]
        assert [m.content["text"] for m in received] == ["first\n", "late", "unparented", "another client's", "own"]
        assert parents == [ids[0], ids[0], None, "x", ids[1]]


async def test_interrupted_code_runs_until_it_is_interrupted_as_often(recording):
    cell = recording.start("cell")
    recording.out(cell, "running")
    recording.line("interrupted")
    recording.out(cell, "ignored one")
    recording.line("interrupted")
    recording.finish(cell)
    recording.cell("next")
    recording.line("closed")
    async with replay_kernel(recording.path) as kernel:
        await kernel.interrupt()  # nothing runs
        cell = await kernel.submit("cell")
        outputs = cell.__aiter__()
        for text in ("running", "ignored one"):
            assert (await outputs.__anext__()).text == text
            assert cell.state == "running"
            await kernel.interrupt()
        assert (await cell.wait()).ok
        assert (await kernel.execute("next")).ok


async def test_a_cancelled_call_is_interrupted_as_it_was(recording):
    cell = recording.start("cell")
    recording.out(cell, "running")
    recording.line("interrupted")
    recording.finish(cell)
    recording.cell("next")
    recording.line("closed")
    async with replay_kernel(recording.path) as kernel:
        async with kernel.stream("cell") as execution:
            async for _ in execution:
                break
        assert execution.state == "settled"
        assert (await kernel.execute("next", timeout=5)).ok


async def test_code_that_ignored_its_interrupts_does_so_again(recording):
    recording.start("cell")
    recording.line("interrupted")
    recording.line("closed")
    async with replay_kernel(recording.path, interrupt_timeout=0.1) as kernel:
        with pytest.raises(ExecutionTimeoutError) as caught:
            await kernel.execute("cell", timeout=0.1)
        assert not caught.value.settled


def record_question(recording, *, masked):
    cell = recording.start("cell", allow_stdin=True)
    asked = recording.received(cell, "input_request", channel="stdin", prompt="? ", password=masked)
    recording.line(
        "sent", channel="stdin", header={"msg_id": "r", "msg_type": "input_reply"}, parent_header=asked,
        content={"value": "answer"}, masked=masked,
    )  # fmt: skip
    recording.out(cell, "answered")
    recording.finish(cell)
    recording.line("closed")


async def test_an_answer_must_be_the_recorded_one(recording):
    record_question(recording, masked=False)
    async with replay_kernel(recording.path) as kernel:
        with pytest.raises(ReplayError, match="answered with 'answer', not with 'other'"):
            await kernel.execute("cell", stdin=lambda prompt, password: "other")
    async with replay_kernel(recording.path) as kernel:
        assert (await kernel.execute("cell", stdin=lambda prompt, password: "answer")).text == "answered"


async def test_any_password_will_do(recording):
    record_question(recording, masked=True)
    async with replay_kernel(recording.path) as kernel:
        assert (await kernel.execute("cell", stdin=lambda prompt, password: "other")).text == "answered"


async def test_a_question_that_was_not_answered_has_no_answer(recording):
    cell = recording.start("cell", allow_stdin=True)
    recording.received(cell, "input_request", channel="stdin", prompt="? ", password=False)
    recording.line("interrupted")
    recording.finish(cell)
    recording.line("closed")
    async with replay_kernel(recording.path) as kernel:
        with pytest.raises(ReplayError, match="no answer to this input request"):
            await kernel.execute("cell", stdin=lambda prompt, password: "other")
    async with replay_kernel(recording.path) as kernel:
        with pytest.raises(StdinError):
            await kernel.execute("cell", stdin=lambda prompt, password: 1)


async def test_death_comes_when_it_came_and_so_does_the_next_process(recording):
    recording.cell("first")
    recording.start("fatal")
    recording.line("died", error="KernelDiedError", text="the kernel was killed", returncode=-9, stderr="x")
    recording.connect()
    recording.cell("again")
    recording.line("closed")
    async with replay_kernel(recording.path, on_death="restart") as kernel:
        assert (await kernel.execute("first")).ok
        with pytest.raises(KernelDiedError, match=r"the kernel was killed; the end of its output:\nx$") as caught:
            await kernel.execute("fatal")
        assert (caught.value.returncode, caught.value.stderr) == (-9, "x")
        assert (await kernel.execute("again")).ok
    async with replay_kernel(recording.path) as kernel:
        with pytest.raises(KernelDiedError):
            await kernel.execute("fatal")
        assert kernel.returncode == -9
        await kernel.restart()
        assert (await kernel.execute("again")).ok


async def test_a_kernel_that_never_answered_does_not_answer_again(tmp_path):
    recording = Recording(tmp_path / "silent.jsonl")
    recording.line("connected")
    for channel in ("shell", "control"):
        recording.sent("kernel_info_request", channel=channel)
    recording.line("closed")
    with pytest.raises(KernelStartTimeoutError):
        async with replay_kernel(recording.path, startup_timeout=0.1):
            raise AssertionError


async def test_leaving_in_the_middle_leaves_nothing(recording):
    cell = recording.start("cell")
    for _ in range(2000):
        recording.lines.append({"event": "received", "time": len(recording.lines), "channel": "iopub", "parent_header": cell,
                                "header": {"msg_id": "m", "msg_type": "stream"}, "content": {"name": "stdout", "text": "x"}})  # fmt: skip
    recording.line("closed")
    for steps in range(0, 60, 7):
        async with replay_kernel(recording.path) as kernel:
            execution = await kernel.submit("cell")
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
        assert execution.state == "settled"


def message(msg_type, msg_id, content, **header):
    return Message("shell", {"msg_id": msg_id, "msg_type": msg_type, "session": "now", **header}, {}, {}, content)


async def test_comms_keep_the_ids_that_the_client_gives_them_now(recording):
    # What the client chooses by chance is not what makes a request the same.
    opened = recording.sent("comm_open", comm_id="then", target_name="t", data={})
    recording.received(opened, "comm_msg", comm_id="then", data={"a": 1})
    recording.received(opened, "comm_msg", comm_id="kernel's own", data={})
    recording.status(opened, "idle")
    recording.sent("comm_msg", comm_id="then", data={"b": 2})
    recording.line("closed")
    async with replay_kernel(recording.path) as kernel, kernel.messages("comm_msg") as messages:
        transport = kernel._link.connection.router.transport
        transport.send(message("comm_open", "1", {"comm_id": "now", "target_name": "t", "data": {}}))
        assert [(await messages.receive()).content["comm_id"] for _ in range(2)] == ["now", "kernel's own"]
        transport.send(message("comm_msg", "2", {"comm_id": "now", "data": {"b": 2}}))


async def test_equal_code_in_another_subshell_is_another_request(recording):
    for subshell in (None, "a", "b"):
        request = recording.start("cell", subshell=subshell)
        recording.out(request, f"in {subshell}")
        recording.finish(request)
    recording.line("closed")
    async with replay_kernel(recording.path) as kernel, kernel.messages("stream") as messages:
        content = next(line["content"] for line in recording.lines if "code" in line.get("content", {}))
        for subshell in ("b", "a"):
            kernel._link.connection.router.transport.send(
                message("execute_request", subshell, content, subshell_id=subshell)
            )
            received = await messages.receive()
            assert (received.content["text"], received.parent_id) == (f"in {subshell}", subshell)
        assert (await kernel.execute("cell")).text == "in None"


async def test_an_interrupt_of_one_shell_ends_no_code_of_another(recording, monkeypatch):
    monkeypatch.setattr(_replay, "PATIENCE", 0)
    content = None
    for subshell in ("a", "b"):
        request = recording.start("cell", subshell=subshell)
        content = recording.lines[-2]["content"]
        recording.line("interrupted", subshell=subshell)
        recording.out(request, f"in {subshell}")
        recording.finish(request)
    recording.line("interrupted")
    recording.line("closed")
    async with replay_kernel(recording.path) as kernel, kernel.messages("stream") as messages:
        for subshell in ("a", "b"):
            kernel._link.connection.router.transport.send(
                message("execute_request", subshell, content, subshell_id=subshell)
            )
        await kernel._lifecycle.interrupt(kernel._link.connection)  # the main shell's
        await anyio.wait_all_tasks_blocked()
        for subshell in ("b", "a"):
            kernel._lifecycle.interrupts_subshell(subshell)
            assert (await messages.receive()).content["text"] == f"in {subshell}"


async def test_what_a_request_owes_to_chance_does_not_make_it_another(recording):
    cell = recording.start("cell", allow_stdin=True)  # another shell could ask for input
    recording.finish(cell)
    for seq, command in enumerate(("first", "second"), start=1):
        asked = recording.sent(
            "debug_request", channel="control", type="request", seq=seq, command=command, arguments={}
        )
        recording.received(
            asked, "debug_reply", channel="control", type="response", request_seq=seq, success=True,
            command=command, body={"was": command},
        )  # fmt: skip
        recording.status(asked, "idle")
    recording.line("closed")
    features = next(line["content"] for line in recording.lines if "supported_features" in line.get("content", {}))
    features["supported_features"] = ["debugger"]
    recording.write()
    async with replay_kernel(recording.path) as kernel:
        assert (await kernel.execute("cell")).ok
        for command in ("second", "first"):
            assert (await kernel.debug(command)).body == {"was": command}


async def test_a_parent_of_the_clients_choice_may_be_anything(recording):
    for parent in ({"msg_id": 1}, {"msg_id": ["x"]}):
        asked = recording.sent("complete_request", parent=parent, code="c", cursor_pos=1)
        recording.finish(asked, matches=["came"])
    recording.line("closed")
    async with replay_kernel(recording.path) as kernel:
        assert (await kernel.complete("c")).matches == ["came"]


async def test_a_comm_without_an_id_is_another_than_one_with_an_id(recording):
    opened = recording.sent("comm_open", target_name="t", data={})
    recording.status(opened, "idle")
    recording.line("closed")
    async with replay_kernel(recording.path) as kernel:
        transport = kernel._link.connection.router.transport
        with pytest.raises(ReplayError, match=r"no \(further\) comm_open on shell with {'comm_id'"):
            transport.send(message("comm_open", "1", {"comm_id": "now", "target_name": "t", "data": {}}))
        transport.send(message("comm_open", "2", {"target_name": "t", "data": {}}))


@pytest.mark.parametrize("name", ["python3", "xpython"])
async def test_variables_are_those_of_their_own_call(tmp_path, name):
    async def use(kernel, numbers):
        called = {}

        async def call(i):
            called[i] = await kernel.call("lambda x: [x]", i)

        await kernel.push(x=1)
        async with anyio.create_task_group() as tasks:
            for i in numbers:
                tasks.start_soon(call, i)
        assert called == {i: [i] for i in numbers}

    path = tmp_path / "variables.jsonl"
    async with open_kernel(name, record_to=path) as kernel:
        await use(kernel, range(4))
    async with replay_kernel(path) as kernel:
        await use(kernel, range(3, -1, -1))
        with pytest.raises(ReplayError, match=r"no \(further\)"):
            await kernel.push(x=2)


async def test_a_comm_that_is_open_is_listed_by_the_id_it_has_now(tmp_path):
    async def use(kernel):
        async with kernel.open_comm("t") as comm:
            assert comm.comm_id in (await kernel.comm_info()).comms
            return comm.comm_id

    path = tmp_path / "comms.jsonl"
    async with open_kernel(record_to=path) as kernel:
        await kernel.execute("get_ipython().kernel.comm_manager.register_target('t', lambda comm, message: None)")
        recorded = await use(kernel)
    async with replay_kernel(path) as kernel:
        assert await use(kernel) != recorded


async def test_output_widgets_capture_the_requests_that_they_name_now(tmp_path):
    async def use(kernel):
        async with kernel.widgets() as widgets:
            code = "from ipywidgets import Output\nout = Output()\nwith out: print('captured')"
            result = await kernel.execute(code, check=True)
            assert result.to_nbformat(captured=False) == []
            (out,) = (widget for widget in widgets.values() if widget.model_name == "OutputModel")
            assert out.outputs()[0]["text"] == "captured\n"
            # By the message with which the kernel is told of it, whose place in the recording it has, too.
            assert await kernel.evaluate("out.outputs[0]['text']") == "captured\n"

    path = tmp_path / "widgets.jsonl"
    async with open_kernel(record_to=path) as kernel:
        await use(kernel)
    async with replay_kernel(path) as kernel:
        await use(kernel)


async def use_in_any_order(kernel, seed):
    """Requests of many tasks, begun in an order of its own."""
    seen = {}

    async def run(i):
        code = f"print({i}, flush=True); {i} * 2" if i % 3 else "print('the same', flush=True)"
        seen[i] = (await kernel.execute(code)).text
        seen[i, "complete"] = (await kernel.complete(f"prin{'t' * (i % 2)}")).matches
        seen[i, "info"] = (await kernel.request("kernel_info_request", {}, channel="control")).content["status"]

    numbers = list(range(24))
    random.Random(seed).shuffle(numbers)
    async with anyio.create_task_group() as tasks:
        for i in numbers:
            tasks.start_soon(run, i)
    return seen


@pytest.fixture(scope="module")
def many_tasks(tmp_path_factory):
    path = tmp_path_factory.mktemp("recordings") / "many.jsonl"

    async def record():
        async with open_kernel(record_to=path, max_in_flight=4) as kernel:
            return await use_in_any_order(kernel, 0)

    return path, anyio.run(record)


@pytest.mark.parametrize("max_in_flight", [1, 4])
async def test_tasks_may_send_in_another_order(many_tasks, max_in_flight):
    path, seen = many_tasks
    for seed in range(3):
        async with replay_kernel(path, max_in_flight=max_in_flight) as kernel:
            assert await use_in_any_order(kernel, seed) == seen


def single_errors(error):
    if isinstance(error, BaseExceptionGroup):
        return [single for inner in error.exceptions for single in single_errors(inner)]
    return [error]


async def test_wherever_it_was_cut_off_no_replay_hangs(many_tasks, tmp_path):
    path, seen = many_tasks
    lines = path.read_bytes().splitlines(keepends=True)
    cut = tmp_path / "cut.jsonl"
    for count in random.Random(1).sample(range(20, len(lines) - 100), 12):
        cut.write_bytes(b"".join(lines[:count]) + lines[count][:30])
        with pytest.raises((ReplayError, BaseExceptionGroup)) as caught:
            async with replay_kernel(cut, max_in_flight=4) as kernel:
                assert await use_in_any_order(kernel, count) == seen
        assert {type(error) for error in single_errors(caught.value)} == {ReplayError}
