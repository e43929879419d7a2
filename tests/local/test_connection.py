"""Connection information and kernelspecs: from what a user gives to where a kernel listens and how it is started."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client import KernelClient, KernelManager
from jupyter_client.connect import write_connection_file
from jupyter_client.kernelspec import KernelSpec

from anykernel import (
    ArgumentError,
    ConnectionFileExistsError,
    ConnectionInfo,
    KernelSpecError,
    KernelStartError,
    UnsupportedError,
)
from anykernel._local.connection import load_connection, new_connection
from anykernel._local.kernelspec import LaunchSpec, resolve_kernel

from ..helpers.strategies import json_values, quick

PORTS = {"shell_port": 1, "iopub_port": 2, "stdin_port": 3, "control_port": 4, "hb_port": 5}
FULL = ConnectionInfo(
    **PORTS,
    ip="127.0.0.2",
    key="the signing key",
    signature_scheme="hmac-sha512",
    curve_publickey="the public key",
    curve_secretkey="the secret key",
)
CHANNELS = ["shell", "iopub", "stdin", "control", "hb"]


@contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# Connection files.


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_a_connection_file_is_for_this_user_alone(tmp_path, mask):
    with umask(mask):
        FULL.write(tmp_path / "c.json")
    assert stat.S_IMODE((tmp_path / "c.json").stat().st_mode) == 0o600


def test_a_connection_file_never_overwrites_another_nor_follows_a_link(tmp_path):
    path, link, target = tmp_path / "c.json", tmp_path / "link.json", tmp_path / "target.json"
    path.write_text("mine")
    link.symlink_to(target)
    for existing in (path, link):
        for error in (ConnectionFileExistsError, ArgumentError, FileExistsError):
            with pytest.raises(error, match=existing.name):
                FULL.write(existing)
    assert path.read_text() == "mine"
    assert not target.exists()


def test_a_connection_file_that_cannot_be_written_is_refused_with_the_reason(tmp_path):
    with pytest.raises(ArgumentError, match=r"nowhere.*No such file or directory"):
        FULL.write(tmp_path / "nowhere" / "c.json")
    with pytest.raises(ArgumentError, match="null"):
        FULL.write("a\0b")
    for path in (None, 7, b"c.json"):
        with pytest.raises(ArgumentError, match="path must be"):
            FULL.write(path)
    assert list(tmp_path.iterdir()) == []


def test_a_connection_file_that_could_not_be_written_to_its_end_is_not_left(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("anykernel._protocol.connection.json.dumps", full)
    with pytest.raises(ArgumentError, match="No space left"):
        FULL.write(tmp_path / "c.json")
    assert list(tmp_path.iterdir()) == []


def test_who_reads_a_connection_file_may_be_unable_to_encrypt_or_want_it(tmp_path):
    plain = msgspec.structs.replace(FULL, curve_publickey=None, curve_secretkey=None)
    with pytest.raises(UnsupportedError, match="encryption='disabled'"):
        FULL.write(str(tmp_path / "a.json"), encryption="disabled")
    with pytest.raises(UnsupportedError, match="not encrypted"):
        plain.write(str(tmp_path / "b.json"), encryption="required")
    with pytest.raises(ArgumentError, match="'none'"):
        plain.write(str(tmp_path / "c.json"), encryption="none")
    assert list(tmp_path.iterdir()) == []
    FULL.write(str(tmp_path / "d.json"), encryption="required")
    plain.write(str(tmp_path / "e.json"), encryption="disabled")
    assert load_connection(str(tmp_path / "d.json")) == FULL
    assert load_connection(str(tmp_path / "e.json")) == plain


ports = st.integers(0, 65535)
words = st.text(max_size=20)
infos = st.builds(
    ConnectionInfo,
    *[ports] * 5,
    ip=words,
    key=words,
    transport=st.sampled_from(["tcp", "ipc"]),
    signature_scheme=words,
    curve_publickey=st.none() | words,
    curve_secretkey=st.none() | words,
)


@given(infos)
@quick
def test_what_is_written_is_loaded_again(info):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "c.json")
        info.write(path)
        assert load_connection(path) == load_connection(str(path)) == info


def test_jupyter_client_reads_our_connection_files(tmp_path):
    info = new_connection("tcp", tmp_path, encrypted=False)
    info.write(tmp_path / "c.json")
    assert None not in json.loads((tmp_path / "c.json").read_text()).values()
    client = KernelClient()
    client.load_connection_file(str(tmp_path / "c.json"))
    assert client.session.key == info.key.encode()
    assert client.session.signature_scheme == info.signature_scheme
    assert [getattr(client, name) for name in PORTS] == [getattr(info, name) for name in PORTS]


def test_we_read_jupyter_clients_connection_files_and_mappings(tmp_path):
    path, fields = write_connection_file(str(tmp_path / "c.json"), key=b"key", signature_scheme="hmac-sha512")
    info = load_connection(path)
    assert (info.key, info.signature_scheme) == ("key", "hmac-sha512")
    assert [getattr(info, name) for name in PORTS] == [fields[name] for name in PORTS]
    fields = KernelManager(connection_file=str(tmp_path / "other.json")).get_connection_info()
    assert isinstance(fields["key"], bytes)
    assert load_connection(fields).key == fields["key"].decode()


def test_a_mapping_is_loaded_with_defaults_for_what_it_lacks_and_without_what_it_has_too_much():
    info = load_connection({**PORTS, "kernel_name": "python3", "jupyter_session": "x"})
    assert info == ConnectionInfo(**PORTS)
    assert (info.ip, info.transport, info.key, info.curve_publickey) == ("127.0.0.1", "tcp", "", None)


def test_connection_info_is_taken_as_it_is():
    assert load_connection(FULL) is FULL


def test_addresses_are_those_of_the_transport():
    assert [FULL.address(channel) for channel in CHANNELS] == [f"tcp://127.0.0.2:{port}" for port in range(1, 6)]
    ipc = msgspec.structs.replace(FULL, transport="ipc", ip="/tmp/x/s")
    assert [ipc.address(channel) for channel in CHANNELS] == [f"ipc:///tmp/x/s-{port}" for port in range(1, 6)]
    assert msgspec.structs.replace(FULL, ip="::1").address("shell") == "tcp://[::1]:1"
    assert msgspec.structs.replace(FULL, ip="fe80::1%eth0").address("shell") == "tcp://[fe80::1%eth0]:1"
    assert not msgspec.structs.replace(ipc, ip="/tmp/a:b/s").is_ipv6


def test_no_key_is_shown():
    shown = f"{FULL!r} {FULL} {[FULL]}"
    assert "key" not in shown
    assert "tcp://127.0.0.2:1" in shown
    assert "encrypted=True" in shown
    assert "encrypted=False" in repr(ConnectionInfo(**PORTS))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "shell_port"),
        ({name: port for name, port in PORTS.items() if name != "hb_port"}, "hb_port"),
        ({**PORTS, "shell_port": "1"}, "shell_port"),
        ({**PORTS, "shell_port": True}, "shell_port"),
        ({**PORTS, "key": None}, "key"),
        ({**PORTS, "ip": 127}, "ip"),
        ({**PORTS, "transport": "udp"}, "transport"),
        ({**PORTS, "curve_publickey": []}, "curve_publickey"),
    ],
)
def test_what_is_missing_or_of_the_wrong_type_is_named(tmp_path, fields, field):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(fields))
    for connection, source in ((fields, "connection information"), (path, str(path))):
        with pytest.raises(KernelStartError, match="incomplete or wrong") as caught:
            load_connection(connection)
        assert field in str(caught.value)
        assert source in str(caught.value)


def test_errors_do_not_show_the_key():
    with pytest.raises(KernelStartError) as caught:
        load_connection({"key": "the signing key", "curve_secretkey": 7})
    assert "the signing key" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '"text"', "\xff"])
def test_a_file_that_is_no_json_object_is_refused_by_name(tmp_path, text):
    path = tmp_path / "c.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(KernelStartError, match="not a JSON object") as caught:
        load_connection(path)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused_by_name_and_reason(tmp_path):
    for path, reason in ((tmp_path / "none.json", "No such file"), (tmp_path, "directory")):
        with pytest.raises(KernelStartError, match=reason) as caught:
            load_connection(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("field", ["key", "ip", "unknown"])
def test_bytes_that_are_no_text_are_refused(field):
    with pytest.raises(KernelStartError, match="incomplete or wrong"):
        load_connection({**PORTS, field: b"\xff"})


@given(st.dictionaries(st.sampled_from(ConnectionInfo.__struct_fields__), json_values | ports | words))
@quick
def test_arbitrary_fields_give_connection_information_or_a_start_error(fields):
    try:
        info = load_connection(fields)
    except KernelStartError:
        return
    assert all(type(getattr(info, name)) is int for name in PORTS)
    assert all(isinstance(value, str) for value in (info.ip, info.key, info.signature_scheme))


# New connections.


def test_new_tcp_connections_have_five_free_ports_and_a_key_each():
    infos = [new_connection("tcp", Path("/unused"), encrypted=False) for _ in range(3)]
    for info in infos:
        assert info.ip == "127.0.0.1"
        assert len({getattr(info, name) for name in PORTS} - {0}) == 5
        assert len(bytes.fromhex(info.key)) == 32
        assert info.curve_publickey is info.curve_secretkey is None
    assert len({info.key for info in infos}) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets the kernel listen on ports that are held")
def test_ports_that_are_held_are_for_the_kernel_alone(tmp_path):
    with ExitStack() as held:
        info = new_connection("tcp", tmp_path, encrypted=False, held=held)
        address = ("127.0.0.1", info.shell_port)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(address)
        with socket.socket() as client, pytest.raises(ConnectionRefusedError):
            client.connect(address)  # nobody listens yet
        with zmq.Context() as context, context.socket(zmq.ROUTER) as kernel:
            kernel.bind(info.address("shell"))
            held.close()
            with socket.create_connection(address):
                pass


def test_a_new_ipc_connection_has_its_sockets_in_the_directory(tmp_path):
    info = new_connection("ipc", tmp_path, encrypted=False)
    addresses = [info.address(channel) for channel in CHANNELS]
    assert all(Path(address.removeprefix("ipc://")).parent == tmp_path for address in addresses)
    assert len(set(addresses)) == 5


def test_an_encrypted_connection_has_a_true_key_pair_of_its_own():
    one, other = (new_connection("tcp", Path("/unused"), encrypted=True) for _ in range(2))
    assert zmq.curve_public(one.curve_secretkey.encode()) == one.curve_publickey.encode()
    assert one.curve_secretkey != other.curve_secretkey
    assert one.curve_secretkey not in repr(one)


# Kernelspecs.

ARGV = ["kernel", "-f", "{connection_file}"]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs kernelspecs where only this test finds them."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))

    def install(name, spec):
        directory = tmp_path / "kernels" / name
        directory.mkdir(parents=True)
        directory.joinpath("kernel.json").write_text(spec if isinstance(spec, str) else json.dumps(spec))
        return directory

    return install


async def test_a_name_means_the_installed_kernelspec(install):
    fields = {"interrupt_mode": "message", "env": {"A": "b"}, "metadata": {"supported_encryption": ["curve"]}}
    directory = install("mine", {"argv": ARGV, "display_name": "Mine", "language": "x", **fields})
    assert await resolve_kernel("mine") == LaunchSpec(
        name="mine",
        argv=ARGV,
        env={"A": "b"},
        interrupt_mode="message",
        supports_curve=True,
        metadata=fields["metadata"],
        resource_dir=str(directory),
    )


async def test_an_unknown_name_is_refused_with_the_installed_ones(install):
    install("one", {"argv": ARGV})
    install("another", {"argv": ARGV})
    with pytest.raises(KernelSpecError, match=r"no kernelspec named 'nonsense'.*another, .*one"):
        await resolve_kernel("nonsense")


@pytest.mark.parametrize("name", ["", "no such name", "../mine", "a/b", "\x00", "é"])
async def test_a_name_that_cannot_be_one_is_refused_as_unknown(install, name):
    install("mine", {"argv": ARGV})
    with pytest.raises(KernelSpecError, match="no kernelspec named"):
        await resolve_kernel(name)


@pytest.mark.parametrize("text", ["", "{"])
async def test_a_kernelspec_that_is_no_json_is_refused_by_name(install, text):
    install("broken", text)
    with pytest.raises(KernelSpecError, match="'broken'"):
        await resolve_kernel("broken")


def _strange(**fields):
    return {"argv": ARGV, "display_name": "Strange", "language": "x", **fields}


strange_specs = {
    "array": [],
    "text": '"text"',
    "argv holds a number": _strange(argv=[1, "{connection_file}"]),
    "env holds a number": _strange(env={"A": 1}),
    "env is a list": _strange(env=["A"]),
    "interrupt_mode is unknown": _strange(interrupt_mode="shout"),
}


@pytest.mark.parametrize("spec", strange_specs.values(), ids=strange_specs.keys())
async def test_a_kernelspec_with_fields_of_the_wrong_type_is_refused_by_name(install, spec):
    install("strange", spec)
    with pytest.raises(KernelSpecError, match="'strange'"):
        await resolve_kernel("strange")


@pytest.mark.parametrize("supported", [["other", "curve"], "curve", " Curve "])
async def test_a_kernelspec_says_curve_in_a_list_or_as_a_text(supported):
    kernel = KernelSpec(argv=ARGV, metadata={"supported_encryption": supported})
    assert (await resolve_kernel(kernel)).supports_curve


@pytest.mark.parametrize("supported", [None, [], ["other"], {}, 1, "other", "curved"])
async def test_a_kernelspec_that_does_not_say_curve_means_no_encryption(supported):
    kernel = KernelSpec(argv=ARGV, metadata={"supported_encryption": supported})
    assert not (await resolve_kernel(kernel)).supports_curve


async def test_a_kernelspec_object_needs_no_installation():
    kernel = KernelSpec(argv=ARGV, display_name="Mine", env={"A": "b"}, resource_dir="/r", interrupt_mode="message")
    spec = await resolve_kernel(kernel)
    assert spec == LaunchSpec("Mine", ARGV, {"A": "b"}, "message", supports_curve=False, resource_dir="/r")


async def test_a_list_is_the_command_itself():
    spec = await resolve_kernel(["/bin/kernel", "--file={connection_file}"])
    assert spec == LaunchSpec("kernel", ["/bin/kernel", "--file={connection_file}"])


@pytest.mark.parametrize("kernel", [[], ["kernel"], ["kernel", "{connection file}"], KernelSpec(argv=["kernel", "-f"])])
async def test_a_command_that_is_not_told_the_connection_file_is_refused(kernel):
    with pytest.raises(KernelSpecError, match=r"\{connection_file\}"):
        await resolve_kernel(kernel)


@pytest.mark.parametrize("kernel", [None, 7, {}, object(), b"python3", [1, "{connection_file}"], [["a"]]])
async def test_what_cannot_be_a_kernel_is_refused(kernel):
    with pytest.raises(KernelSpecError):
        await resolve_kernel(kernel)


@pytest.mark.parametrize("python", ["python", "python3", f"python3.{sys.version_info[1]}"])
async def test_a_bare_python_is_the_one_that_runs_the_client(install, python):
    argv = [python, "-m", "module", "{connection_file}"]
    install("mine", {"argv": argv})
    for kernel in ("mine", KernelSpec(argv=argv)):
        assert (await resolve_kernel(kernel)).argv == [sys.executable, *argv[1:]]


@pytest.mark.parametrize("python", ["/usr/bin/python", "python2", "pythonista", "python3.99"])
async def test_any_other_python_stays_what_it_is(python):
    assert (await resolve_kernel(KernelSpec(argv=[python, "{connection_file}"]))).argv[0] == python


def test_the_fields_of_a_command_are_filled_in_and_others_left_alone():
    argv = ["{prefix}/bin/k", "a{resource_dir}b", "--f={connection_file}", "{unknown}", "{", "{}", "{a b}", "{0}"]
    spec = LaunchSpec("k", argv, resource_dir="/r")
    assert spec.command(Path("/c{prefix}.json")) == [
        *(f"{sys.prefix}/bin/k", "a/rb", "--f=/c{prefix}.json", "{unknown}", "{", "{}", "{a b}", "{0}")
    ]


def test_the_environment_is_ours_then_the_kernelspecs_then_the_callers(monkeypatch):
    monkeypatch.setenv("OURS", "1")
    monkeypatch.setenv("SPECS", "1")
    monkeypatch.setenv("CALLERS", "1")
    env = LaunchSpec("k", ARGV, env={"SPECS": "2", "CALLERS": "2"}).environment({"CALLERS": "3"})
    assert (env["OURS"], env["SPECS"], env["CALLERS"]) == ("1", "2", "3")
    assert env["JPY_PARENT_PID"] == str(os.getpid())
    assert os.environ["SPECS"] == "1"


def test_variables_in_the_kernelspecs_environment_are_filled_in_from_ours_and_the_callers_are_taken_as_they_are(
    monkeypatch,
):
    monkeypatch.setenv("HERE", "here")
    monkeypatch.delenv("NOWHERE", raising=False)
    values = {"A": "${HERE}:$HERE/x", "B": "${NOWHERE} $", "C": "$$HERE", "HERE": "${HERE}:more", "D": "${HERE}"}
    env = LaunchSpec("k", ARGV, env=values).environment({"E": "${HERE}"})
    assert env["A"] == "here:here/x"
    assert env["B"] == "${NOWHERE} $"
    assert env["C"] == "$HERE"
    assert env["HERE"] == "here:more"
    assert env["D"] == "here"
    assert env["E"] == "${HERE}"
