"""Kernels that a provisioner of jupyter_client starts: on every event loop what those started here are."""

from __future__ import annotations

import os
import signal
import sys
from importlib.metadata import EntryPoint

import anyio
import psutil
import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.provisioning import LocalProvisioner

import anykernel._local.provisioned
from anykernel import (
    ExecutionTimeoutError,
    KernelDiedError,
    KernelSpecError,
    KernelStartError,
    KernelStartTimeoutError,
    Limits,
    UnsupportedError,
    kernelspecs,
    open_kernel,
)
from anykernel.launchers import ProvisionerLauncher
from anykernel.pool import open_pool

GROUP = "jupyter_client.kernel_provisioners"
LAUNCHER = ProvisionerLauncher("local-provisioner")


class Own(LocalProvisioner):
    """One that is installed beside the local one."""

    def __init__(self, **options):
        super().__init__(**options)
        self.marks.append(self)

    marks: list[Own] = []  # noqa: RUF012
    misdeed = None

    async def launch_kernel(self, cmd, **options):
        if self.misdeed is not None:
            await self.misdeed()
        return await super().launch_kernel(cmd, **options)

    async def cleanup(self, restart=False):  # noqa: FBT002
        await super().cleanup(restart)
        self.marks.remove(self)


@pytest.fixture
def own(monkeypatch):
    """A provisioner of ours, as if it were installed; and no process of it is left in the end."""
    from jupyter_client.provisioning import KernelProvisionerFactory

    entry = EntryPoint("own-provisioner", f"{__name__}:Own", GROUP)
    monkeypatch.setitem(KernelProvisionerFactory.instance().provisioners, entry.name, entry)
    monkeypatch.setattr(anykernel._local.provisioned, "entry_points", lambda **wanted: [wanted["name"]])
    monkeypatch.setattr(Own, "misdeed", None)
    yield Own
    assert Own.marks == []


def provisioned(name, **fields):
    spec = kernelspecs()["python3"]
    metadata = {**spec.metadata, "kernel_provisioner": {"provisioner_name": name, "config": {}}}
    return KernelSpec(argv=spec.argv, display_name="far", language="python", metadata=metadata, **fields)


async def test_a_kernelspec_that_names_a_provisioner_gets_it(own, tmp_path):
    async with open_kernel(
        provisioned("own-provisioner", env={"A": "${HOME}-b"}), env={"C": "d"}, cwd=tmp_path
    ) as kernel:
        assert [mark.pid for mark in own.marks] == [kernel.pid]
        assert await kernel.evaluate("(os := __import__('os')).getpid()") == kernel.pid
        found = await kernel.evaluate("[os.environ['A'], os.environ['C'], os.getcwd()]")
        assert found == [f"{os.environ['HOME']}-b", "d", str(tmp_path)]
        assert kernel.connection.curve_publickey is not None
        with pytest.raises(ExecutionTimeoutError) as caught:
            await kernel.execute("import time; time.sleep(60)", timeout=0.3)
        assert caught.value.settled
        before = kernel.pid
        await kernel.restart()
        assert kernel.pid != before
        assert not psutil.pid_exists(before)
    assert kernel.returncode == 0


async def test_the_death_of_its_kernel_is_seen_and_told_with_its_last_words():
    async with open_kernel(launcher=LAUNCHER) as kernel:
        # A child, which is not to outlive it.
        await kernel.execute("import os, subprocess; child = subprocess.Popen(['sleep', '1000'])", check=True)
        with pytest.raises(KernelDiedError, match="SIGKILL") as caught:
            await kernel.execute("import signal; os.write(2, b'farewell'); os.kill(os.getpid(), signal.SIGKILL)")
        assert caught.value.returncode == -signal.SIGKILL
        assert "farewell" in caught.value.stderr


async def test_its_kernel_dies_at_its_limits_and_is_wrapped():
    async with open_kernel(launcher=LAUNCHER, limits=Limits(cpu_seconds=1000), wrap=["nice", "-n", "7"]) as kernel:
        assert await kernel.evaluate("[__import__('os').nice(0), __import__('resource').getrlimit(0)[0]]") == [7, 1000]
        with pytest.raises(KernelDiedError) as caught:
            await kernel.execute("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)")
        assert caught.value.reason == "cpu_seconds"


async def test_a_kernel_that_does_not_start_says_why():
    with pytest.raises(KernelStartError, match="status 3 before it was ready") as caught:
        async with open_kernel(
            [sys.executable, "-c", "import sys; sys.stderr.write('no luck'); sys.exit(3)", "{connection_file}"],
            launcher=LAUNCHER,
        ):
            pytest.fail("it does not start")
    assert (caught.value.returncode, caught.value.stderr) == (3, "no luck")


async def test_a_provisioner_that_cannot_start_its_kernel_is_told(own):
    async def fail():
        raise OSError("the cluster is full")

    own.misdeed = staticmethod(fail)
    with pytest.raises(KernelStartError, match="the cluster is full"):
        async with open_kernel(provisioned("own-provisioner")):
            pytest.fail("it does not start")


@pytest.mark.parametrize("how", ["timeout", "cancellation"])
async def test_a_start_that_takes_too_long_or_is_cancelled_leaves_nothing(own, how):
    begun, home = anyio.Event(), anykernel._local.provisioned.Home()

    async def rest():
        home.call(begun.set)
        await anyio.sleep_forever()

    own.misdeed = staticmethod(rest)
    if how == "timeout":
        with pytest.raises(KernelStartTimeoutError, match=r"not started within 0\.5 s"):
            async with open_kernel(provisioned("own-provisioner"), startup_timeout=0.5):
                pytest.fail("it does not start")
    else:
        async with anyio.create_task_group() as tasks:

            async def start():
                async with open_kernel(provisioned("own-provisioner")):
                    pytest.fail("it does not start")

            tasks.start_soon(start)
            await begun.wait()
            tasks.cancel_scope.cancel()


async def test_a_kernel_that_is_cancelled_while_it_becomes_ready_leaves_nothing(own):
    with anyio.move_on_after(0.4) as scope:
        async with open_kernel(
            [sys.executable, "-c", "import time; time.sleep(60)", "{connection_file}"], launcher=LAUNCHER
        ):
            pytest.fail("it is never ready")
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("name", "package"),
    [("kubernetes-provisioner", "gateway_provisioners"), ("far-provisioner", "where its kernelspec")],
)
async def test_a_provisioner_that_is_not_installed_is_named_with_what_brings_it(name, package):
    with pytest.raises(KernelSpecError, match=f"'far'.*'{name}'.*{package}"):
        async with open_kernel(provisioned(name)):
            pytest.fail("it must not be started here")


async def test_what_a_launcher_cannot_do_is_refused():
    with pytest.raises(UnsupportedError, match="TCP"):
        async with open_kernel(launcher=LAUNCHER, transport="ipc"):
            pytest.fail("it must not be started")


async def test_a_pool_takes_its_kernels_from_a_launcher():
    async with open_pool(size=1, spares=1, launcher=LAUNCHER) as pool:
        assert (await pool.execute("6 * 7")).text == "42"
