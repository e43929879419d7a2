"""Kernels as tasks of Dask, on a cluster of two worker processes on this machine."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys

import anyio
import psutil
import pytest

from anykernel import ArgumentError, ExecutionTimeoutError, KernelDiedError, KernelStartError, open_kernel
from anykernel.launchers import DaskLauncher

distributed = pytest.importorskip("distributed")
pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, resources={"kernel": 1}
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(autouse=True)
def nothing_left_behind(client):
    """Instead of what other tests are asked: a cluster opens and closes descriptors as it likes."""
    yield
    kernels = [p for p in psutil.Process().children(recursive=True) if _is_kernel(p)]
    _, left = psutil.wait_procs(kernels, timeout=3)
    assert left == []


def _is_kernel(process):
    try:
        return any("kernel.json" in word for word in process.cmdline())
    except psutil.NoSuchProcess:
        return False


async def idle(client):
    """Wait until no worker does anything."""
    with anyio.fail_after(20):
        while any((await anyio.to_thread.run_sync(client.processing)).values()):
            await anyio.sleep(0.02)


async def test_a_kernel_runs_on_a_worker_and_is_interrupted_and_restarted(client):
    launcher = DaskLauncher(client, resources={"kernel": 1})
    async with open_kernel(launcher=launcher, env={"A": "b"}) as kernel:
        parent = psutil.Process(await kernel.evaluate("__import__('os').getppid()"))
        assert parent.pid in client.run(os.getpid).values()
        assert await kernel.evaluate("__import__('os').environ['A']") == "b"
        assert kernel.connection.curve_publickey is not None
        with pytest.raises(ExecutionTimeoutError) as caught:
            await kernel.execute("import time; time.sleep(60)", timeout=0.3)
        assert caught.value.settled
        before = kernel.pid
        await kernel.restart()
        assert kernel.pid != before
        assert (await kernel.execute("6 * 7")).text == "42"
    assert kernel.returncode == 0
    await idle(client)


async def test_as_many_kernels_run_as_there_are_resources_and_leaving_frees_one_at_once(client):
    launcher = DaskLauncher(client, resources={"kernel": 1})
    async with open_kernel(launcher=launcher) as first, open_kernel(launcher=launcher) as second:
        assert first.pid != second.pid
        with pytest.raises(KernelStartError, match="not started within"):
            async with open_kernel(launcher=launcher, startup_timeout=0.5):
                pytest.fail("there is no room")
        await second.shutdown()
        async with open_kernel(launcher=launcher) as third:
            assert (await third.execute("1")).ok


async def test_the_death_of_a_kernel_is_told_as_here(client):
    async with open_kernel(launcher=DaskLauncher(client)) as kernel:
        with pytest.raises(KernelDiedError, match="SIGKILL") as caught:
            await kernel.execute("import os, signal; os.write(2, b'bye'); os.kill(os.getpid(), signal.SIGKILL)")
        assert caught.value.returncode == -signal.SIGKILL
    await idle(client)


async def test_the_death_of_a_worker_is_seen_and_its_kernel_does_not_outlive_it(client):
    async with open_kernel(launcher=DaskLauncher(client)) as kernel:
        with anyio.fail_after(5), pytest.raises(KernelDiedError) as caught:
            await kernel.execute("import os, signal; os.kill(os.getppid(), signal.SIGKILL)\nwhile True: pass")
        assert caught.value.reason == "its worker is gone"
    client.wait_for_workers(2, timeout=20)
    await idle(client)


async def test_a_cancelled_start_frees_its_worker(client):
    never = [sys.executable, "-c", "import time; time.sleep(60)", "{connection_file}"]
    for seconds in (0.0, 0.05, 0.5):
        with anyio.move_on_after(seconds):
            async with open_kernel(never, launcher=DaskLauncher(client)):
                pytest.fail("it is never ready")
        await idle(client)


async def test_a_command_that_is_not_there_is_told_and_no_log_has_a_key(client):
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    logging.getLogger("distributed").addHandler(handler)
    try:
        with pytest.raises(KernelStartError, match="cannot run '/nowhere'"):
            async with open_kernel(["/nowhere", "{connection_file}"], launcher=DaskLauncher(client)):
                pytest.fail("there is none")
        async with open_kernel(launcher=DaskLauncher(client)) as kernel:
            info = kernel.connection
    finally:
        logging.getLogger("distributed").removeHandler(handler)
    logs = [heard.getvalue(), str(client.get_worker_logs()), str(client.get_scheduler_logs()), str(client.get_events())]
    assert "/nowhere" in logs[1]  # so it is a log that has what failed
    for secret in (info.key, info.curve_secretkey):
        assert not any(secret in log for log in logs)


async def test_an_asynchronous_client_is_refused():
    class Asynchronous:
        asynchronous = True

    with pytest.raises(ArgumentError, match="not asynchronous"):
        DaskLauncher(Asynchronous())
