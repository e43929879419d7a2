"""Every request of the protocol, bad input, and the ways into the package, on a real kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timezone

import anyio
import numpy as np
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager

from anykernel import (
    AnyKernelError,
    ArgumentError,
    ConnectionInfo,
    ExecutionError,
    ExecutionTimeoutError,
    KernelSpecError,
    KernelStartError,
    KernelStartTimeoutError,
    ProtocolError,
    UnsupportedError,
    connect_kernel,
    open_kernel,
)

from ..helpers.scripted import scripted_kernel


async def test_every_request_is_answered():
    async with open_kernel() as kernel:
        await kernel.execute("import collections\nnumbers = [1, 2]")
        completions = await kernel.complete("numbers.app")
        assert "append" in " ".join(completions.matches)
        assert completions["cursor_start"] <= completions.cursor_end == len("numbers.app")
        assert "append" in " ".join((await kernel.complete("numbers.app + 1", 11)).matches)
        inspection = await kernel.inspect("collections.OrderedDict")
        assert inspection.found
        assert "OrderedDict" in inspection.data["text/plain"]
        assert not (await kernel.inspect("no_such_name")).found
        assert (await kernel.is_complete("1 + 1")).status == "complete"
        assert (await kernel.is_complete("for i in x:")).status == "incomplete"
        assert (await kernel.is_complete("for")).status == "invalid"
        history = await kernel.history("range", session=0)
        assert history.history[-1][2] == "import collections\nnumbers = [1, 2]"
        assert (await kernel.history("tail", n=1)).history[0][2].startswith("import")
        await kernel.execute("second = 2")
        found = (await kernel.history("search", pattern="*second*", n=5, output=True, unique=True)).history
        assert found[-1][2][0] == "second = 2"
        session = await kernel.history("range", session=0, start=1, stop=2, raw=False)
        assert [entry[1] for entry in session.history] == [1]
        assert (await kernel.comm_info()).comms == {}
        info = await kernel.kernel_info()
        assert info.implementation == kernel.info.implementation == "ipython"
        assert info.language == "python"
        assert info.language_info["file_extension"] == ".py"
        reply = await kernel.request("kernel_info_request", {}, channel="control")
        assert reply.content["status"] == "ok"
        with pytest.raises(ProtocolError, match="no_such_request"):
            await kernel.request("no_such_request", {})
        assert (await kernel.execute("1 + 1")).data["text/plain"] == "2"


async def test_evaluate_gives_values_or_reprs(kernel):
    before = await kernel.execute("x = {'a': [1, 2.5, None, True], 'b': (b'bytes', {3})}")
    assert await kernel.evaluate("x") == {"a": [1, 2.5, None, True], "b": (b"bytes", {3})}
    assert await kernel.evaluate("list(range(5000))") == list(range(5000))
    assert await kernel.evaluate("'text \\n é'") == "text \n é"
    assert await kernel.evaluate("1 +\n1") == 2
    assert await kernel.evaluate("object") == "<class 'object'>"
    assert await kernel.evaluate("float('inf')") == "inf"
    with pytest.raises(ExecutionError) as caught:
        await kernel.evaluate("1 / 0")
    assert caught.value.ename == "ZeroDivisionError"
    with pytest.raises(ExecutionError):
        await kernel.evaluate("not an expression")
    assert (await kernel.execute("1")).execution_count == before.execution_count + 1


async def test_requests_of_many_tasks_do_not_cross(kernel):
    seen = []

    async def complete(i):
        matches = (await kernel.complete(f"name_{i}_")).matches
        seen.append(matches == [f"name_{i}_x"])

    async def execute(i):
        seen.append((await kernel.execute(f"print({i})")).stdout == f"{i}\n")

    await kernel.execute("\n".join(f"name_{i}_x = 1" for i in range(20)))
    async with anyio.create_task_group() as tasks:
        for i in range(20):
            tasks.start_soon(complete, i)
            tasks.start_soon(execute, i)
    assert seen == 40 * [True]


async def test_silent_code_leaves_no_count_and_no_result_but_its_output(kernel):
    before = await kernel.execute("0")
    result = await kernel.execute("print('x'); 5", silent=True)
    assert (result.stdout, result.data, result.ok) == ("x\n", {}, True)
    assert (await kernel.execute("1")).execution_count == before.execution_count + 1
    result = await kernel.execute("1 / 0", silent=True)
    assert result.error.ename == "ZeroDivisionError"


async def test_stdin_is_answered_or_refused(kernel):
    result = await kernel.execute("input('? ')")
    assert result.error.ename == "StdinNotImplementedError"
    asked = []

    async def answer(prompt, password):
        asked.append((prompt, password))
        await anyio.lowlevel.checkpoint()
        return f"answer {len(asked)}"

    code = "from getpass import getpass\n[input('name: '), getpass('word: '), input()]"
    result = await kernel.execute(code, stdin=answer)
    assert result.data["text/plain"] == "['answer 1', 'answer 2', 'answer 3']"
    assert asked == [("name: ", False), ("word: ", True), ("", False)]

    def end(prompt, password):
        raise EOFError

    assert (await kernel.execute("input()", stdin=end)).error.ename == "EOFError"


async def test_code_that_asks_again_when_nobody_answers_any_more_gets_to_its_end(kernel):
    code = "import code\nprint('runs', flush=True)\ncode.interact()"  # which asks again after each interrupt
    with pytest.raises(ExecutionTimeoutError) as caught:
        await kernel.execute(code, stdin=lambda *_: anyio.sleep_forever(), timeout=0.5)
    assert caught.value.settled
    content = {
        "code": "input()",
        "silent": False,
        "store_history": False,
        "user_expressions": {},
        "allow_stdin": True,
        "stop_on_error": False,
    }
    assert (await kernel.request("execute_request", content)).content["ename"] == "EOFError"


async def test_an_answer_to_a_prompt_that_was_interrupted_is_not_taken_for_the_next(kernel):
    code = """
try:
    input('first? ')
except KeyboardInterrupt:
    print('interrupted', flush=True)
input('second? ')
"""
    async with anyio.create_task_group() as tasks:
        asked, cancelled = [], []

        async def answer(prompt, password):
            asked.append(prompt)
            if prompt == "first? ":
                tasks.start_soon(kernel.interrupt)
                try:
                    await anyio.sleep_forever()
                finally:
                    cancelled.append(prompt)
            return "for the second"

        result = await kernel.execute(code, stdin=answer)
        assert result.stdout == "interrupted\n"
        assert result.data["text/plain"] == "'for the second'"
        assert (asked, cancelled) == (["first? ", "second? "], ["first? "])


async def test_what_the_kernel_uses_of_its_machine(kernel):
    usage = await kernel.usage()
    assert usage.pid == kernel.pid
    assert usage.kernel_memory > 2**20
    assert usage.cpu_count > 0
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:

        async def answer_others():
            await script.next("usage_request")  # behind a kernel_info_request, which is answered

        tasks.start_soon(answer_others)
        with pytest.raises(UnsupportedError, match="does not tell"):
            await kernel.usage()


async def test_requests_with_an_id_and_a_parent_of_the_callers_choice():
    async with open_kernel() as kernel, kernel.messages("status") as messages:
        parent = {"msg_id": "cause", "session": "elsewhere", "msg_type": "event"}
        reply = await kernel.request("kernel_info_request", {}, msg_id="mine", parent=parent, metadata={"a": 1})
        assert reply.parent_id == "mine"
        with anyio.fail_after(10):
            while (await messages.receive()).parent_id != "mine":
                pass  # the last of those that came with the start
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: kernel.request("x_request", {"b": 2}, msg_id="id", parent=parent, buffers=[b"data"]))
        request = await script.next("x_request")
        assert (request.msg_id, request.parent_header, list(request.buffers)) == ("id", parent, [b"data"])
        with pytest.raises(ArgumentError, match="under way"):
            await kernel.request("y_request", {}, msg_id="id")
        for wrong in ("", 5, "x" * 2000, "\udc80", "a\nb"):
            with pytest.raises(ArgumentError, match="printable characters"):
                await kernel.request("y_request", {}, msg_id=wrong)
        for wrong in ({"parent": 5}, {"parent": {"msg_id": 5}}, {"metadata": 5}, {"buffers": 5}, {"buffers": b"one"}):
            with pytest.raises(ArgumentError, match=next(iter(wrong))):
                await kernel.request("y_request", {}, **wrong)
        script.reply(request)


async def test_messages_of_unknown_types_pass_through_untouched():
    async with scripted_kernel() as (kernel, script), kernel.messages() as messages:
        execution = await kernel.submit("code")
        request = await script.next()
        script.start(request)
        script.publish(request, "no_such_type", anything=[1, {"a": None}])
        script.finish(request)
        assert (await execution.wait()).outputs == []
        received = [await messages.receive() for _ in range(4)]
        (unknown,) = (message for message in received if message.msg_type == "no_such_type")
        assert unknown.content == {"anything": [1, {"a": None}]}
        assert unknown.parent_id == request.msg_id


async def test_kernels_by_name_spec_and_command():
    spec = KernelSpecManager().get_kernel_spec("python3")
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    for kernel_ in ("python3", spec, command):
        async with open_kernel(kernel_) as kernel:
            assert (await kernel.execute("1 + 1")).data["text/plain"] == "2"
            assert kernel.is_alive
            assert kernel.pid
            assert kernel.returncode is None
            assert "ipython" in repr(kernel)


async def test_working_directory_and_environment(tmp_path):
    async with open_kernel(cwd=tmp_path, env={"ANYKERNEL_TEST": "here"}) as kernel:
        assert await kernel.evaluate("__import__('os').getcwd()") == str(tmp_path)
        assert await kernel.evaluate("__import__('os').environ['ANYKERNEL_TEST']") == "here"
        assert await kernel.evaluate("__import__('os').environ['PATH']") == os.environ["PATH"]


async def test_two_clients_of_one_kernel_get_what_is_theirs(kernel, tmp_path):
    path = tmp_path / "connection.json"
    kernel.connection.write(path)
    for connection in (path, str(path), kernel.connection, json.loads(path.read_text())):
        async with connect_kernel(connection) as other, kernel.messages("execute_input") as inputs:
            async with anyio.create_task_group() as tasks:
                results = {}

                async def run(client, name):
                    results[name] = await client.execute(f"print('{name}')")

                for i in range(10):
                    tasks.start_soon(run, kernel, f"one {i}")
                    tasks.start_soon(run, other, f"two {i}")
            assert all(result.stdout == f"{name}\n" for name, result in results.items())
            for _ in range(20):
                await inputs.receive()  # also the other's
            assert other.pid is None
            with pytest.raises(UnsupportedError):
                await other.restart()
    assert (await kernel.execute("1 + 1")).data["text/plain"] == "2"


async def test_connecting_to_a_busy_kernel_does_not_wait_for_its_cell(kernel):
    execution = await kernel.submit("import time; print('runs', flush=True); time.sleep(60)")
    async for _ in execution:
        break  # an interrupt before would be lost
    with anyio.fail_after(10):
        async with connect_kernel(kernel.connection) as other:
            assert other.info.implementation == "ipython"
            await other.interrupt()
    assert (await execution.wait()).error.ename == "KeyboardInterrupt"


async def test_a_jupyter_client_managers_kernel_can_be_connected_to(anyio_backend_name):
    if anyio_backend_name != "asyncio":
        pytest.skip("jupyter_client's managers run on asyncio only")
    manager = AsyncKernelManager()
    await manager.start_kernel()
    try:
        async with connect_kernel(manager.get_connection_info()) as kernel:
            assert (await kernel.execute("6 * 7")).data["text/plain"] == "42"
        assert await manager.is_alive()
        async with connect_kernel(manager.connection_file) as kernel:
            assert (await kernel.execute("6 * 7")).data["text/plain"] == "42"
            await kernel.shutdown()
    finally:
        await manager.shutdown_kernel(now=True)  # which cleans up


async def test_unknown_kernelspecs_are_answered_with_what_is_installed():
    with pytest.raises(KernelSpecError, match=r"'no-such-kernel'.*python3"):
        async with open_kernel("no-such-kernel"):
            pass


async def test_commands_without_a_place_for_the_connection_file_are_refused():
    for command in ([], ["python", "-m", "ipykernel"], [1, 2], 5):
        with pytest.raises(KernelSpecError):
            async with open_kernel(command):
                pass
    with pytest.raises(KernelStartError, match="no-such-program"):
        async with open_kernel(["no-such-program", "{connection_file}"]):
            pass


async def test_bad_options_are_refused():
    for options in (
        {"transport": "udp"},
        {"encryption": "yes"},
        {"on_death": "mourn"},
        {"max_in_flight": 0},
        {"startup_timeout": -1},
        {"heartbeat_interval": 0},
        {"output_limit": "much"},
        {"max_in_flight": 1.5},
        {"env": 5},
        {"cwd": 5},
        {"env": {"A": 1}},
        {"env": {"A": "\0"}},
        {"cwd": "/nonexistent"},
    ):
        with pytest.raises(AnyKernelError, match=next(iter(options))):
            async with open_kernel(**options):
                pass
    with pytest.raises(UnsupportedError, match="encryption"):
        async with open_kernel(transport="ipc", encryption="required"):
            pass


async def test_connection_files_that_cannot_be_used_are_told_apart(tmp_path):
    path = tmp_path / "connection.json"
    with pytest.raises(KernelStartError, match="No such file"):
        async with connect_kernel(path):
            pass
    path.write_text("not json")
    with pytest.raises(KernelStartError, match="not a JSON object"):
        async with connect_kernel(path):
            pass
    text = '{"shell_port": 1, "key": "a secret"}'
    for unusable in (5, text):
        with pytest.raises(ArgumentError, match="a path, a mapping or a ConnectionInfo") as caught:
            async with connect_kernel(unusable):
                pass
        assert "secret" not in str(caught.value)
    path.write_text(text)
    with pytest.raises(KernelStartError, match=r"incomplete.*iopub_port"):
        async with connect_kernel(path):
            pass


async def test_a_wrong_key_is_said_to_be_wrong_at_once(kernel):
    fields = {name: getattr(kernel.connection, name) for name in ConnectionInfo.__struct_fields__}
    with anyio.fail_after(10), pytest.raises(KernelStartError, match="the key or the encryption"):
        async with connect_kernel({**fields, "key": "wrong"}):
            pass
    assert (await kernel.execute("1 + 1")).data["text/plain"] == "2"


async def test_an_address_where_nobody_listens_is_a_start_timeout():
    with pytest.raises(KernelStartTimeoutError, match="nothing answers"):
        async with connect_kernel(
            {"shell_port": 1, "iopub_port": 2, "stdin_port": 3, "control_port": 4, "hb_port": 5}, startup_timeout=0.5
        ):
            pass


@pytest.mark.parametrize("run", ["anyio", "trio through anyio", "trio", "asyncio", "uvloop"])
def test_the_same_program_runs_under_every_event_loop(run):
    runs = {
        "anyio": "import anyio; anyio.run(main)",
        "trio through anyio": "import anyio; anyio.run(main, backend='trio')",
        "trio": "import trio; trio.run(main)",
        "asyncio": "import asyncio; asyncio.run(main())",
        "uvloop": "import uvloop; uvloop.run(main())",
    }
    # With requests whose answers set clocks and start tasks from where no task runs: what goes wrong there is logged.
    program = f"""
from anykernel import connect_kernel, open_kernel
async def main():
    async with open_kernel() as kernel:
        print((await kernel.execute("6 * 7")).text)
        await kernel.usage()
        async with connect_kernel(kernel.connection) as other:
            execution = await other.submit("print('runs', flush=True); __import__('time').sleep(100)")
            async for output in execution:
                break
            print(await execution.cancel())
{runs[run]}
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("42\nTrue\n", "", 0)


async def test_an_execution_can_be_given_an_id_and_metadata(kernel):
    async with kernel.messages("execute_input") as messages:
        result = await kernel.execute("1", msg_id="mine", metadata={"cellId": "c1"})
        assert result.msg_id == "mine"
        assert (await messages.receive()).parent_id == "mine"
    async with kernel.stream("2", msg_id="stream's") as execution:
        assert execution.msg_id == "stream's"
        await execution.wait()
    code = "get_ipython().kernel.get_parent()['metadata'].get('cellId')"
    assert (await kernel.execute(code, metadata={"cellId": "c2"})).data["text/plain"] == "'c2'"
    running = await kernel.submit("import time; time.sleep(60)", msg_id="taken")
    with pytest.raises(ArgumentError, match="taken"):
        await kernel.request("kernel_info_request", {}, msg_id="taken")
    await running.cancel()
    for wrong in ({"msg_id": ""}, {"msg_id": "x" * 2000}, {"msg_id": 5}, {"metadata": ["x"]}):
        with pytest.raises(ArgumentError):
            await kernel.execute("3", **wrong)


async def test_a_result_tells_when_it_was_queued_sent_started_and_ended(kernel):
    before = datetime.now(timezone.utc)
    first = await kernel.submit("import time; time.sleep(0.05)")
    second = await kernel.submit("4")
    third = await kernel.submit("5")
    assert (second.result.sent_at, second.result.started_at, second.result.ended_at) == (None, None, None)
    await third.cancel()
    result = await second.wait()
    times = [result.queued_at, first.result.ended_at, result.sent_at, result.started_at, result.ended_at]
    assert times[0] <= times[1] <= times[2] <= times[3] <= times[4]
    assert before <= times[0]
    assert all(time.tzinfo == timezone.utc for time in times)
    assert (first.result.ended_at - first.result.started_at).total_seconds() >= 0.05
    assert third.result.queued_at is not None
    assert (third.result.sent_at, third.result.started_at, third.result.ended_at) == (None, None, None)


async def test_what_cannot_be_asked_is_refused_before_it_is_sent(kernel):
    for ask in (
        lambda: kernel.complete("a", 300),
        lambda: kernel.complete("a", -1),
        lambda: kernel.inspect("a", 2),
        lambda: kernel.complete("\ud800"),
        lambda: kernel.inspect("\ud800"),
        lambda: kernel.is_complete("\ud800"),
    ):
        with pytest.raises(ArgumentError):
            await ask()
    with pytest.raises(ArgumentError, match=r"user_expressions must map .*'a' to"):
        await kernel.execute("1", user_expressions={"a": np.int64(3)})
    for handler in (input, lambda: "x", lambda prompt: "x"):
        with pytest.raises(
            ArgumentError, match=r"stdin is called with the prompt and whether .*lambda prompt, password"
        ):
            await kernel.execute("input()", stdin=handler)


async def test_numbers_of_numpy_are_numbers(kernel):
    with pytest.raises(ExecutionTimeoutError):
        await kernel.execute("while True: pass", timeout=np.float32(0.3))
    async with open_kernel(startup_timeout=np.float64(30), shutdown_timeout=np.int64(5)) as other:
        assert await other.evaluate("1 + 1") == 2
    content = {"code": "x", "cursor_pos": np.int64(1), "more": [np.float32(0.5), np.bool_(True)]}
    assert (await kernel.request("complete_request", content)).content["status"] == "ok"
    with pytest.raises(ArgumentError, match="ndarray"):
        await kernel.request("complete_request", {"code": np.zeros(2)})


async def test_no_time_at_all_runs_nothing(kernel):
    await kernel.execute("ran = 0")
    with pytest.raises(ExecutionTimeoutError, match="never runs") as caught:
        await kernel.execute("ran = 1", timeout=0)
    assert caught.value.settled
    execution = await kernel.submit("ran = 1", timeout=0)
    assert execution.state == "settled"
    with pytest.raises(ExecutionTimeoutError):
        await execution.wait()
    assert await kernel.evaluate("ran") == 0
    assert kernel.pending == 0


async def test_errors_of_an_expression_speak_of_its_own_lines(kernel):
    with pytest.raises(ExecutionError, match="line 1"):
        await kernel.evaluate("1 +")


async def test_help_that_a_cell_asks_for_is_shown(kernel):
    seen = []
    result = await kernel.execute("len?", on_output=seen.append)
    assert "Return the number of items in a container" in result.text
    assert [output["output_type"] for output in result.to_nbformat()] == ["display_data"]
    assert len(seen) == 1


async def test_an_error_that_is_raised_while_a_value_is_shown_keeps_its_name(kernel):
    result = await kernel.execute("class Bad:\n    def __repr__(self): return 1 / 0\nBad()")
    assert (result.ok, result.error.ename) == (False, "ZeroDivisionError")
    result = await kernel.execute("try: 1 / 0\nexcept Exception: get_ipython().showtraceback()")
    assert (result.ok, result.error) == (True, None)
    assert "ZeroDivisionError" in result.text


@pytest.mark.parametrize("name", ["python -m ipykernel -f {connection_file}", "/usr/bin/python", "./kernel"])
async def test_a_command_that_is_no_list_is_told_to_be_one(name):
    with pytest.raises(KernelSpecError, match=r"a command is a list, such as \["):
        async with open_kernel(name):
            pytest.fail("there is no such kernelspec")
