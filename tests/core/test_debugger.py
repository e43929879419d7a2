"""The kernel's debugger: commands and events of the Debug Adapter Protocol."""

from __future__ import annotations

import anyio
import pytest

from anykernel import (
    ArgumentError,
    ConnectionClosedError,
    DebugError,
    DebugReply,
    ExecutionTimeoutError,
    KernelDiedError,
    ProtocolError,
    UnsupportedError,
    open_kernel,
)

from ..helpers.scripted import INFO, scripted_kernel

CODE = """\
def double(a):
    b = a * 2
    return b
print(double(21))"""


async def start(kernel) -> None:
    """Start the debugger, with a breakpoint in the second line of the code."""
    await kernel.debug("initialize", {"clientID": "test", "adapterID": "python", "pathFormat": "path"})
    await kernel.debug("attach")
    path = (await kernel.debug("dumpCell", {"code": CODE})).body["sourcePath"]
    reply = await kernel.debug("setBreakpoints", {"source": {"path": path}, "breakpoints": [{"line": 2}]})
    assert reply.body["breakpoints"][0]["verified"]
    await kernel.debug("configurationDone")


async def stopped(events) -> int:
    """Wait for a breakpoint, and return the thread that stands there."""
    async for event in events:
        if event["event"] == "stopped":
            return event["body"]["threadId"]
    raise AssertionError


async def test_a_cell_stops_at_a_breakpoint_is_looked_at_and_goes_on_or_ends_with_its_kernel():
    # (The kernel ends long before the shutdown's timeout, which is longer than the test may take.)
    async with open_kernel(shutdown_timeout=100) as kernel, kernel.debug_events() as events:
        assert not (await kernel.debug("debugInfo")).body["isStarted"]
        with pytest.raises(DebugError, match="initialize") as caught:
            await kernel.debug("setBreakpoints", {"source": {"path": "x.py"}, "breakpoints": []})
        assert caught.value.command == "setBreakpoints"
        await start(kernel)

        async with kernel.stream(CODE) as execution:
            thread = await stopped(events)
            frames = (await kernel.debug("stackTrace", {"threadId": thread})).body["stackFrames"]
            assert [(frame["name"], frame["line"]) for frame in frames] == [("double", 2), ("<module>", 4)]
            scopes = (await kernel.debug("scopes", {"frameId": frames[0]["id"]})).body["scopes"]
            arguments = {"variablesReference": scopes[0]["variablesReference"]}
            variables = (await kernel.debug("variables", arguments)).body["variables"]
            assert [(variable["name"], variable["value"]) for variable in variables] == [("a", "21")]
            with pytest.raises(DebugError, match="nonsense") as caught:
                await kernel.debug("nonsense")
            assert caught.value.reply["success"] is False
            assert execution.state == "running"
            await kernel.debug("continue", {"threadId": thread})
            assert (await execution.wait()).text.strip() == "42"

        await kernel.execute("number = 5", check=True)
        assert "number" in {v["name"] for v in (await kernel.debug("inspectVariables")).body["variables"]}

        standing = await kernel.submit(CODE)
        await stopped(events)
    with pytest.raises(ConnectionClosedError):
        await standing.wait()


async def test_a_cell_at_a_breakpoint_is_stopped_and_the_kernel_goes_on_and_can_be_debugged_again():
    # The traceback takes a debugged kernel a second or two, or more where the machine is busy.
    async with open_kernel(interrupt_timeout=50) as kernel, kernel.debug_events() as events:
        await start(kernel)
        execution = await kernel.submit(CODE)
        await stopped(events)
        assert await execution.cancel()
        assert execution.result.error.ename == "KeyboardInterrupt"
        assert execution.result.stdout == ""  # it did not run on from the breakpoint
        assert await kernel.evaluate("1 + 1") == 2
        information = (await kernel.debug("debugInfo")).body
        assert (information["isStarted"], information["stoppedThreads"]) == (False, [])
        await start(kernel)  # though up to Python 3.11 it stops nowhere any more
        assert (await kernel.debug("disconnect")).success


# On a kernel that does what no real one can be made to do.


@pytest.fixture
def with_debugger(monkeypatch):
    monkeypatch.setitem(INFO, "supported_features", ["debugger"])


async def ask(kernel, script, *replies):
    """What the kernel was asked, one command after another, and what came of it."""
    requests, outcomes = [], []

    async def answer():
        for reply in replies:
            request = await script.next("debug_request")
            assert request.channel == "control"
            requests.append(request.content)
            script.transport.answer(request, "control", "debug_reply", reply)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        for _ in replies:
            try:
                outcomes.append(await kernel.debug("next", {"threadId": 1}))
            except Exception as exc:  # noqa: BLE001 - looked at by the test
                outcomes.append(exc)
    return requests, outcomes


async def test_commands_are_numbered_and_answers_typed(with_debugger):
    async with scripted_kernel() as (kernel, script):
        requests, outcomes = await ask(
            kernel,
            script,
            {"success": True, "command": "next", "body": {"n": 1}},
            {"body": {"modules": []}},
            {"success": False, "message": "notStopped"},
            {"success": False},
            {"status": "error", "ename": "RuntimeError", "evalue": "not connected"},
            {},
            {"success": "perhaps"},
        )
        command = {"type": "request", "command": "next", "arguments": {"threadId": 1}}
        assert requests == [{**command, "seq": seq} for seq in range(1, 8)]
        first, bare, not_stopped, no_reason, status, empty, strange = outcomes
        assert isinstance(first, DebugReply)
        assert (first.success, first.command, first["body"], first.body) == (True, "next", {"n": 1}, {"n": 1})
        assert bare.body == {"modules": []}
        assert (type(not_stopped), not_stopped.message) == (DebugError, "notStopped")
        assert (type(no_reason), no_reason.reply) == (DebugError, {"success": False})
        assert (type(status), status.message) == (DebugError, "RuntimeError: not connected")
        assert type(empty) is DebugError
        assert type(strange) is ProtocolError


async def test_what_cannot_be_asked_is_not_sent(with_debugger):
    async with scripted_kernel() as (kernel, script):
        with pytest.raises(ArgumentError):
            await kernel.debug(5)
        with pytest.raises(ArgumentError):
            await kernel.debug("next", {"threadId": object()})
        assert script.nothing_sent()


async def test_a_kernel_that_says_it_has_no_debugger_is_not_asked():
    async with scripted_kernel() as (kernel, script):
        with pytest.raises(UnsupportedError):
            await kernel.debug("debugInfo")
        assert script.nothing_sent()


async def test_no_answer_means_no_debugger_unless_there_was_one_before(with_debugger, monkeypatch):
    monkeypatch.setattr("anykernel._core.router.GRACE", 0.05)
    async with scripted_kernel() as (kernel, script):
        for expected in (UnsupportedError, ProtocolError):
            async with anyio.create_task_group() as tasks:

                async def finish():
                    script.status(await script.next("debug_request"), "idle")

                tasks.start_soon(finish)
                with pytest.raises(expected):
                    await kernel.debug("debugInfo")
            await ask(kernel, script, {"success": True})


async def test_a_command_ends_with_its_caller_or_the_kernel(with_debugger):
    async with scripted_kernel() as (kernel, script), kernel.debug_events() as events:
        script.publish(None, "debug_event", type="event", event="stopped", body={"threadId": 1})
        assert (await events.receive())["body"] == {"threadId": 1}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kernel.debug, "pause")
            await script.next("debug_request")
            tasks.cancel_scope.cancel()
        assert len(kernel._link.connection.router) == 0
        async with anyio.create_task_group() as tasks:

            async def die():
                await script.next("debug_request")
                script.transport.gone.set()

            tasks.start_soon(die)
            with pytest.raises(KernelDiedError):
                await kernel.debug("pause")
        with pytest.raises(KernelDiedError):
            await events.receive()


async def test_code_at_a_breakpoint_is_let_go_behind_its_interrupt(with_debugger, monkeypatch):
    monkeypatch.setattr("anykernel._core.stopping.BREAKPOINT_GRACE", 0.05)
    async with scripted_kernel() as (kernel, script):
        for events, is_let_go in (
            (["stopped"], True),
            (["stopped", "continued"], False),
            (["stopped", "terminated"], False),
        ):
            async with anyio.create_task_group() as tasks:

                async def run():
                    with pytest.raises(ExecutionTimeoutError) as caught:
                        await kernel.execute("code", timeout=0.05)
                    assert caught.value.settled

                tasks.start_soon(run)
                request = await script.next()
                script.start(request)
                for event in events:
                    script.publish(None, "debug_event", type="event", event=event, body={"threadId": 1})
                script.reply(await script.next("interrupt_request"))
                if is_let_go:
                    command = await script.next("debug_request")
                    assert command.content["command"] == "disconnect"
                    assert command.content["arguments"]["terminateDebuggee"] is False
                    script.transport.answer(command, "control", "debug_reply", {"success": True})
                script.finish(request, status="error", ename="KeyboardInterrupt", evalue="")


async def test_a_debugger_that_does_not_let_go_holds_up_no_interrupt(with_debugger, monkeypatch):
    for name in ("stopping.BREAKPOINT_GRACE", "stopping.BREAKPOINT_INTERVAL", "debugger.DETACH_TIMEOUT"):
        monkeypatch.setattr(f"anykernel._core.{name}", 0.05)
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:

        async def run():
            with pytest.raises(ExecutionTimeoutError) as caught:
                await kernel.execute("code", timeout=0.05)
            assert caught.value.settled

        tasks.start_soon(run)
        request = await script.next()
        script.start(request)
        script.publish(None, "debug_event", type="event", event="stopped", body={"threadId": 1})
        script.reply(await script.next("interrupt_request"))
        assert (await script.next("debug_request")).content["command"] == "disconnect"  # and no answer
        script.reply(await script.next("interrupt_request"))
        script.finish(request, status="error", ename="KeyboardInterrupt", evalue="")
