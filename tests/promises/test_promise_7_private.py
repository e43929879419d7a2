"""Promise 7: private by default. On real kernels."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import anyio
import pytest

from anykernel import (
    ConnectionInfo,
    KernelStartError,
    KernelStartTimeoutError,
    UnsupportedError,
    connect_kernel,
    open_kernel,
)

COMMAND = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


async def connection_file(kernel) -> Path:
    return Path(await kernel.evaluate("__import__('ipykernel').connect.get_connection_file()"))


async def test_the_connection_file_is_this_users_alone_and_gone_afterwards():
    async with open_kernel() as kernel:
        path = await connection_file(kernel)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700  # ipykernel adds the sticky bit
        fields = json.loads(path.read_text())
        assert len(fields["key"]) == 64
        assert fields["key"] not in repr(kernel.connection) + repr(kernel)
    assert not path.parent.exists()


async def test_keys_and_addresses_are_fresh_for_each_kernel():
    async with open_kernel() as one, open_kernel() as two:
        assert one.connection.key != two.connection.key
        assert one.connection.curve_secretkey != two.connection.curve_secretkey
        assert one.connection.shell_port != two.connection.shell_port


async def test_traffic_is_encrypted_where_the_kernel_can_and_without_the_key_there_is_nothing():
    async with open_kernel(encryption="required") as kernel:
        assert kernel.connection.curve_publickey
        fields = {name: getattr(kernel.connection, name) for name in ConnectionInfo.__struct_fields__}
        plain = {**fields, "curve_publickey": None, "curve_secretkey": None}
        other_key = {**fields, "curve_publickey": "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"}
        with pytest.raises(KernelStartError, match="encryption is not the kernel's"):
            async with connect_kernel(plain):
                pass
        with pytest.raises(KernelStartTimeoutError, match="nothing answers"):
            async with connect_kernel(other_key, startup_timeout=1):
                pass
        async with connect_kernel(fields) as other:
            assert (await other.execute("6 * 7")).data["text/plain"] == "42"


async def test_encryption_can_be_left_out_and_is_never_left_out_silently():
    async with open_kernel(encryption="disabled") as kernel:
        assert kernel.connection.curve_publickey is None
    with pytest.raises(UnsupportedError, match="required"):
        async with open_kernel(COMMAND, encryption="required"):
            pass


async def test_ipc_sockets_lie_in_the_private_directory():
    async with open_kernel(transport="ipc") as kernel:
        assert (await kernel.execute("6 * 7")).data["text/plain"] == "42"
        directory = Path(kernel.connection.ip).parent
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert len(kernel.connection.address("shell")) < 100
        assert (await kernel.execute("input()", stdin=lambda *_: "over ipc")).data["text/plain"] == "'over ipc'"
        with anyio.fail_after(10):
            await kernel.restart()
        assert (await kernel.execute("6 * 7")).data["text/plain"] == "42"
    assert not directory.exists()
