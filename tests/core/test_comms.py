"""Comms: opened by us, opened by the kernel, left alone where they are another client's."""

from __future__ import annotations

import array
from contextlib import asynccontextmanager

import anyio
import pytest

from anykernel import (
    ArgumentError,
    CommClosedError,
    ConnectionClosedError,
    KernelDiedError,
    KernelRestartedError,
    UnsupportedError,
    connect_kernel,
    open_kernel,
)

from ..helpers.scripted import scripted_kernel
from ..helpers.zoo import IPYKERNEL, each, installed

TARGETS = """
from comm import create_comm, get_comm_manager
kept = []

def echo(comm, msg):
    kept.append(comm)
    comm.send({"opened with": msg["content"]["data"]}, buffers=msg["buffers"])
    comm.on_msg(lambda m: comm.send(m["content"]["data"], m["metadata"], m["buffers"]))

def once(comm, msg):
    comm.send({"answer": 42})
    comm.close({"bye": 1})

def quiet(comm, msg):
    comm.on_msg(kept.append)
    comm.on_close(kept.append)

def broken(comm, msg):
    raise RuntimeError

for function in (echo, once, quiet, broken):
    get_comm_manager().register_target(function.__name__, function)
"""


@asynccontextmanager
async def open_with_targets():
    async with open_kernel() as kernel:
        await kernel.execute(TARGETS, check=True)
        yield kernel


# On real kernels.


async def test_a_comm_carries_data_metadata_and_buffers_both_ways_until_either_side_closes_it():
    numbers = array.array("d", [1.5, 2.5, 3.5])
    grid = memoryview(bytes(range(6))).cast("B", (2, 3))
    async with open_with_targets() as kernel:
        async with kernel.open_comm("echo", {"a": 1}, buffers=[b"first"]) as comm:
            message = await comm.receive()
            assert message.content["data"] == {"opened with": {"a": 1}}
            assert bytes(message.buffers[0]) == b"first"
            assert (await kernel.comm_info()).comms == {comm.comm_id: {"target_name": "echo"}}

            await comm.send({"b": [2]}, metadata={"m": 1}, buffers=[b"", numbers, grid, memoryview(numbers)[::2]])
            message = await comm.receive()
            assert message.content["data"] == {"b": [2]}
            assert message.metadata["m"] == 1
            empty, all_, rows, halves = message.buffers
            assert (bytes(empty), bytes(all_)) == (b"", numbers.tobytes())
            assert (bytes(rows), array.array("d", bytes(halves)).tolist()) == (bytes(range(6)), [1.5, 3.5])

            with pytest.raises(ArgumentError):
                await comm.send(object())
            with pytest.raises(ArgumentError):
                await comm.send(buffers=[b"a buffer", "no buffer"])
            await comm.send("anything with a form in JSON")
            assert (await comm.receive()).content["data"] == "anything with a form in JSON"
            assert not comm.closed
        assert comm.closed
        assert (await kernel.comm_info()).comms == {}
        with pytest.raises(CommClosedError):
            await comm.send()
        with pytest.raises(anyio.EndOfStream):
            await comm.receive()

        async with kernel.open_comm("once") as comm:
            assert [message.content["data"] async for message in comm] == [{"answer": 42}]
            assert (comm.closed, comm.close_data) == (True, {"bye": 1})
            with pytest.raises(CommClosedError):
                await comm.send()
        for target in ("unknown", "broken"):
            with pytest.raises(UnsupportedError, match=target):
                async with kernel.open_comm(target):
                    pytest.fail("the kernel did not take it")
        assert len(kernel._link.connection.router) == 0
        assert (await kernel.comm_info()).comms == {}


async def test_what_is_sent_while_a_cell_runs_gets_through_after_it_or_while_it_awaits():
    async with open_with_targets() as kernel:
        execution = await kernel.submit("import time; time.sleep(0.3)")
        async with kernel.open_comm("quiet") as comm, kernel.open_comm("unknown") as other:
            await comm.send({"n": 1})
            await comm.send({"n": 2})
            assert execution.state != "settled"
            with pytest.raises(UnsupportedError):
                await other.receive()
            with pytest.raises(UnsupportedError):
                await other.send()
            with pytest.raises(UnsupportedError):
                async for _ in other:
                    pass
            await comm.close({"bye": 2})
        assert await kernel.evaluate("[m['content']['data'] for m in kept]") == [{"n": 1}, {"n": 2}, {"bye": 2}]

        # An async cell may itself wait for what is to be sent, from ipykernel 7.4 on.
        enough = 5 if IPYKERNEL >= (7, 4) else 3
        code = f"import asyncio\nwhile len(kept) < {enough}: await asyncio.sleep(0.01)\nprint(len(kept))"
        async with kernel.stream(code) as execution, kernel.open_comm("quiet") as comm:
            await comm.send("one")
            await comm.send("two")
            assert (await execution.wait()).text.strip() == f"{enough}"
            assert await kernel.evaluate("[m['content']['data'] for m in kept[3:]]") == ["one", "two"]
        assert len(kernel._link.connection.router) == 0


async def test_comms_that_the_kernel_opens_are_received_whole_until_a_restart_ends_them():
    code = """
comm = create_comm(target_name="progress", data={"of": 3}, metadata={"m": 1}, buffers=[b"raw"])
for i in range(3): comm.send({"i": i})
create_comm(target_name="another")
"""
    async with open_with_targets() as kernel, kernel.comms("progress") as stream:
        with pytest.raises(ArgumentError):
            async with kernel.comms("progress"):
                pass
        await kernel.execute(code, check=True)
        comm = await stream.receive()
        assert (comm.target_name, comm.data, comm.metadata["m"]) == ("progress", {"of": 3}, 1)
        assert bytes(comm.buffers[0]) == b"raw"
        for i in range(3):
            assert (await comm.receive()).content["data"] == {"i": i}
        await comm.send({"go": "on"})
        await kernel.execute("comm.close({'done': True})", check=True)
        assert [message async for message in comm] == []
        assert comm.close_data == {"done": True}

        await kernel.execute(code, check=True)
        comm = await stream.receive()
        await comm.close()
        assert comm.comm_id not in (await kernel.comm_info()).comms

        # A restart ends them, and not the stream of new ones.
        async with kernel.open_comm("quiet") as ours:
            await kernel.execute(code, check=True)
            theirs = await stream.receive()
            assert [(await theirs.receive()).content["data"]["i"] for _ in range(3)] == [0, 1, 2]
            await kernel.restart()
            for ended in (ours, theirs):
                with pytest.raises(KernelRestartedError):
                    await ended.receive()
                with pytest.raises(KernelRestartedError):
                    await ended.send()
        await kernel.execute("from comm import create_comm\n" + code, check=True)
        assert (await stream.receive()).data == {"of": 3}


async def test_a_widget_is_followed_and_changed_by_the_client_that_owns_it():
    async with open_kernel() as kernel, connect_kernel(kernel.connection) as other:
        async with kernel.comms("jupyter.widget") as widgets, other.comms("jupyter.widget") as seen:
            await kernel.execute("from ipywidgets import IntSlider\nslider = IntSlider(3, description='n')", check=True)
            async for slider in widgets:
                if slider.data["state"]["_model_name"] == "IntSliderModel":
                    break
            assert slider.data["state"]["value"] == 3
            assert (await seen.receive()).target_name == "jupyter.widget"

            await slider.send({"method": "update", "state": {"value": 7}, "buffer_paths": []})
            assert await kernel.evaluate("slider.value") == 7
            await other.execute("slider.value = 9", check=True)
            async for message in slider:
                if message.content["data"]["method"] == "update":
                    assert message.content["data"]["state"] == {"value": 9}
                    break
        # Neither who looked on nor whose block ended has closed it.
        assert await other.evaluate("slider.comm is not None and slider.value") == 9


# bash_kernel has none, as the scripted kernel below that does not list them.
@pytest.mark.parametrize("name", each(["ipykernel 6", "xeus-python", "async-kernel"]))
async def test_other_kernels_have_comms_or_say_that_they_have_none(name):
    async with installed(name).open() as kernel:
        with pytest.raises(UnsupportedError):
            async with kernel.open_comm("unknown"):
                pytest.fail("the kernel did not take it")
        if name != "xeus-python":  # it has comms of its own, but calls no target of ours
            await kernel.execute(TARGETS, check=True)
            async with kernel.open_comm("echo", {"a": 1}) as comm:
                assert (await comm.receive()).content["data"] == {"opened with": {"a": 1}}
                await comm.send({"b": 2}, buffers=[b"raw"])
                assert bytes((await comm.receive()).buffers[0]) == b"raw"
        async with kernel.comms("progress") as stream:
            await kernel.execute(
                "from comm import create_comm\ngot = []\ncomm = create_comm(target_name='progress', data={'of': 3})\n"
                "comm.on_msg(got.append); comm.send({'i': 1}, buffers=[b'raw'])",
                check=True,
            )
            comm = await stream.receive()
            assert comm.data == {"of": 3}
            message = await comm.receive()
            assert (message.content["data"], bytes(message.buffers[0])) == ({"i": 1}, b"raw")
            await comm.send({"back": 1})
            assert await kernel.evaluate("got[0]['content']['data']") == {"back": 1}


# On a kernel that does what no real one can be made to do.


async def take_open(script, *, listed=True):
    """The kernel's side of opening a comm."""
    opening = await script.next("comm_open")
    script.status(opening, "idle")
    request = await script.next("comm_info_request")
    assert request.content == {"target_name": opening.content["target_name"]}
    comm_id = opening.content["comm_id"]
    script.finish(request, comms={comm_id: {"target_name": opening.content["target_name"]}} if listed else {})


async def heard(kernel, script):
    """Wait until all that the kernel has said by now has been read."""
    async with kernel.messages("marker") as stream:
        script.publish(None, "marker")
        await stream.receive()


async def open_in(tasks, kernel, script, **options):
    """Open a comm in a task that goes on until it is cancelled."""

    async def hold(*, task_status):
        async with kernel.open_comm("t") as comm:
            task_status.started(comm)
            await anyio.sleep_forever()

    tasks.start_soon(take_open, script)
    return await tasks.start(hold)


def say(script, msg_type, comm_id, data=None, *, request=None, **fields):
    content = {"comm_id": comm_id, "data": data if data is not None else {}, **fields}
    script.publish(request, msg_type, **content)


async def test_a_comm_that_the_kernel_does_not_list_was_refused():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: take_open(script, listed=False))
        with pytest.raises(UnsupportedError):
            async with kernel.open_comm("t"):
                pytest.fail("the kernel did not take it")


async def test_a_close_that_names_no_cause_is_a_refusal_while_the_comm_is_opening():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:

        async def refuse():
            opening = await script.next("comm_open")
            say(script, "comm_close", opening.content["comm_id"])
            script.status(opening, "idle")

        tasks.start_soon(refuse)
        with pytest.raises(UnsupportedError):
            async with kernel.open_comm("t"):
                pytest.fail("the kernel did not take it")
        assert script.nothing_sent()  # it is closed already


async def test_a_kernel_that_cannot_list_comms_may_still_have_them():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:

        async def take():
            script.status(await script.next("comm_open"), "idle")
            script.finish(await script.next("comm_info_request"), comms=None)

        tasks.start_soon(take)
        async with kernel.open_comm("t") as comm:
            assert not comm.closed


async def test_opening_does_not_wait_long_for_another_clients_silent_cell(monkeypatch):
    monkeypatch.setattr("anykernel._core.router.GRACE", 0.05)
    async with scripted_kernel() as (kernel, script), kernel.open_comm("t") as comm:
        opening = await script.next("comm_open")
        say(script, "comm_close", comm.comm_id, request=opening)
        with pytest.raises(UnsupportedError):
            await comm.receive()


async def test_opening_ends_with_the_first_message_however_long_the_handler_runs():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:

        async def take():
            opening = await script.next("comm_open")
            say(script, "comm_msg", opening.content["comm_id"], {"n": 1})

        tasks.start_soon(take)
        async with kernel.open_comm("t") as comm:
            assert (await comm.receive()).content["data"] == {"n": 1}


@pytest.mark.parametrize("waits_for", ["idle", "the list"])
async def test_a_cancelled_opening_is_closed_and_one_that_was_not_sent_is_not(waits_for):
    async with scripted_kernel() as (kernel, script):
        with anyio.CancelScope() as scope:
            scope.cancel()
            async with kernel.open_comm("t"):
                pytest.fail("it was cancelled before")
        assert scope.cancelled_caught
        assert script.nothing_sent()
        async with anyio.create_task_group() as tasks:

            async def cancel():
                opening = await script.next("comm_open")
                if waits_for == "the list":
                    script.status(opening, "idle")
                    await script.next("comm_info_request")
                tasks.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    closing = await script.next("comm_close")
                assert closing.content == {"comm_id": opening.content["comm_id"], "data": {}}

            tasks.start_soon(cancel)
            async with kernel.open_comm("t"):
                pytest.fail("it was cancelled while opening")
        assert tasks.cancel_scope.cancelled_caught
        assert len(kernel._link.connection.router) == 0


async def test_a_cancelled_call_sends_nothing_and_loses_nothing():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        comm = await open_in(tasks, kernel, script)
        for call in (comm.send, comm.close, comm.receive):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await call()
            assert scope.cancelled_caught
        with anyio.move_on_after(0.01) as scope:
            await comm.receive()
        assert scope.cancelled_caught
        assert script.nothing_sent()
        say(script, "comm_msg", comm.comm_id, {"n": 1})
        assert (await comm.receive()).content["data"] == {"n": 1}
        tasks.cancel_scope.cancel()
    assert comm.closed


@pytest.mark.parametrize("expected", [KernelDiedError, KernelRestartedError, ConnectionClosedError])
async def test_all_comms_end_when_the_kernel_goes(expected):
    async with scripted_kernel() as (kernel, script), kernel.comms("t") as stream, anyio.create_task_group() as tasks:
        ours = await open_in(tasks, kernel, script)
        say(script, "comm_open", "k1", target_name="t")
        theirs = await stream.receive()
        say(script, "comm_msg", "k1", {"last": 1})
        assert (await theirs.receive()).content["data"] == {"last": 1}

        async def go():
            await script.next("comm_open")
            if expected is ConnectionClosedError:
                kernel._lifecycle.close()
            else:
                kernel._link.connection.router.restart_announced = expected is KernelRestartedError
                script.transport.gone.set()

        tasks.start_soon(go)
        with pytest.raises(expected):
            async with kernel.open_comm("t"):
                pytest.fail("the kernel went away")
        for comm in (ours, theirs):
            assert comm.closed
            with pytest.raises(expected):
                await comm.receive()
            with pytest.raises(expected):
                await comm.send()
            await comm.close()
        with pytest.raises(anyio.EndOfStream if expected is ConnectionClosedError else expected):
            await stream.receive()
        with pytest.raises(expected):
            async with kernel.open_comm("t"):
                pytest.fail("there is no kernel")
        tasks.cancel_scope.cancel()


async def test_what_is_not_ours_or_malformed_is_left_alone_and_still_seen():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        async with kernel.comms("t") as stream, kernel.messages() as everything:
            ours = await open_in(tasks, kernel, script)
            strange = [
                ("comm_open", {"comm_id": "k1", "target_name": "another"}),
                ("comm_open", {"comm_id": 5, "target_name": "t"}),
                ("comm_open", {"target_name": "t"}),
                ("comm_open", {"comm_id": "k1", "target_name": ["t"]}),
                ("comm_open", {"comm_id": ours.comm_id, "target_name": "t"}),
                ("comm_msg", {"comm_id": "k1", "data": {}}),
                ("comm_msg", {"comm_id": ["k1"]}),
                ("comm_msg", {}),
                ("comm_close", {"comm_id": None}),
                ("comm_msg", {"comm_id": ours.comm_id}),
                ("comm_open", {"comm_id": "k2", "target_name": "t"}),
                ("comm_close", {"comm_id": "k2"}),
                ("comm_msg", {"comm_id": "k2", "data": {}}),
            ]
            for msg_type, content in strange:
                script.publish(None, msg_type, **content)
            await heard(kernel, script)
            assert (await ours.receive()).content == {"comm_id": ours.comm_id}
            comm = await stream.receive()
            assert (comm.comm_id, comm.data, comm.closed, comm.close_data) == ("k2", None, True, None)
            assert [message async for message in comm] == []
            seen = []
            while len(seen) < len(strange):
                message = await everything.receive()
                if message.msg_type.startswith("comm_"):
                    seen.append((message.msg_type, message.content))
            assert seen == strange
            assert kernel._link.connection.router.transport.dropped == {}
        tasks.cancel_scope.cancel()


async def test_a_slow_consumer_loses_the_oldest_messages_and_holds_up_nobody():
    async with scripted_kernel(output_limit=10 * 2148) as (kernel, script), kernel.comms("t") as stream:
        say(script, "comm_open", "k1", target_name="t")
        for i in range(100):
            say(script, "comm_msg", "k1", {"i": i})
        say(script, "comm_close", "k1", {"bye": 1})
        await heard(kernel, script)
        comm = await stream.receive()
        received = [message.content["data"]["i"] async for message in comm]
        assert (received, comm.dropped, comm.close_data) == (list(range(90, 100)), 90, {"bye": 1})


async def test_comms_that_nobody_holds_take_no_memory():
    async with scripted_kernel(output_limit=10 * 2148) as (kernel, script), kernel.comms("t") as stream:
        for i in range(100):
            say(script, "comm_open", f"k{i}", target_name="t")
        await heard(kernel, script)
        comms = [await stream.receive() for _ in range(10)]
        assert [comm.comm_id for comm in comms] == [f"k{i}" for i in range(90, 100)]
        assert stream.dropped == 90
        assert len(kernel._link.connection.comms._lines) == 10
        # One that is still iterated over is held.
        iterator = aiter(comms.pop())
        comms.clear()
        del comms
        say(script, "comm_msg", "k99", {"n": 1})
        assert (await anext(iterator)).content["data"] == {"n": 1}


async def test_unusable_targets_are_refused():
    async with scripted_kernel() as (kernel, script):
        for target in (None, 5, b"t"):
            with pytest.raises(ArgumentError):
                async with kernel.open_comm(target):
                    pytest.fail("unreachable")
            with pytest.raises(ArgumentError):
                async with kernel.comms(target):
                    pytest.fail("unreachable")
        with pytest.raises(ArgumentError):
            async with kernel.open_comm("t", object()):
                pytest.fail("unreachable")
        assert script.nothing_sent()
