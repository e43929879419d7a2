"""What is installed here: listed and found as Jupyter does, without importing what takes long."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

from anykernel import InstalledKernelSpec, kernelspecs, open_kernel
from anykernel._local import resolve_kernel

ARGV = ["kernel", "-f", "{connection_file}"]


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Two places where kernelspecs are looked for, and IPython's; each installs what it is given."""
    directories = [tmp_path / "first" / "kernels", tmp_path / "second" / "kernels", tmp_path / "ipython" / "kernels"]
    for module in ("jupyter_core.paths", "jupyter_client.kernelspec"):
        monkeypatch.setattr(f"{module}.jupyter_path", lambda *_: [str(path) for path in directories[:2]])
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))

    def installer(directory):
        def install(name, /, text=None, **fields):
            path = directory / name
            path.mkdir(parents=True)
            path.joinpath("kernel.json").write_text(json.dumps({"argv": ARGV, **fields}) if text is None else text)
            return path

        return install

    return [installer(directory) for directory in directories]


def as_jupyter_lists_them():
    return {
        name: {"name": name, "resource_dir": found["resource_dir"], **found["spec"]}
        for name, found in KernelSpecManager().get_all_specs().items()
    }


def same(found, expected):
    shown = {
        name: {field: getattr(spec, field) for field in InstalledKernelSpec.__struct_fields__}
        for name, spec in found.items()
    }
    for spec in expected.values():
        spec.pop("kernel_protocol_version")
    return shown == expected


def test_what_is_listed_is_what_jupyter_lists(places):
    first, second, ipython = places
    full = {"env": {"A": "b"}, "interrupt_mode": "Message", "metadata": {"supported_encryption": ["curve"]}}
    first("mine", display_name="Mine", language="x", **full)
    first("Upper", display_name="Upper")
    second("mine", display_name="hidden")
    second("a.b-c_1", display_name="Another", mimetype="text/x")
    ipython("old", display_name="Old")
    second("python3", display_name="Python", language="python")
    (second("no kernel") / "kernel.json").unlink()
    found = kernelspecs()
    assert list(found) == ["a.b-c_1", "mine", "old", "python3", "upper"]
    assert same(found, as_jupyter_lists_them())


def test_the_installed_ones_are_listed_as_jupyter_lists_them():
    found = kernelspecs()
    assert found["python3"].language == "python"
    assert same(found, as_jupyter_lists_them())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of ipykernel's own imports
def test_ipykernel_stands_in_where_no_python_kernel_is_installed(places):
    places[0]("mine")
    found = kernelspecs()
    assert list(found) == ["mine", "python3"]
    assert same(found, as_jupyter_lists_them())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"argv": 5}', '{"argv": [], "env": {"A": 1}}'])
def test_what_cannot_be_read_is_left_out_with_a_warning(places, text, caplog):
    places[0]("broken", text)
    places[1]("broken")  # which it hides all the same
    places[1]("python3")
    with caplog.at_level(logging.WARNING, "anykernel"):
        assert list(kernelspecs()) == ["python3"]
    assert "'broken' cannot be read" in caplog.text


def test_listing_and_finding_take_no_import_of_jupyter_client():
    program = """
import sys, anyio, anykernel
from anykernel._local import resolve_kernel
print("python3" in anykernel.kernelspecs(), anyio.run(resolve_kernel, "python").name)
try:
    anyio.run(resolve_kernel, "nonsense")
except anykernel.KernelSpecError:
    print(sorted({"jupyter_client", "traitlets", "IPython", "ipykernel"} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (run.stdout, run.stderr) == ("True python3\n[]\n", "")


async def test_each_way_to_name_the_python_kernel_opens_it():
    for kernel in ("python", "Python3", kernelspecs()["python3"]):
        async with open_kernel(kernel) as opened:
            assert opened.info.implementation == "ipython"
            assert opened.connection.curve_publickey is not None  # so its metadata were read, too


async def test_python_means_the_python_kernel_even_where_another_has_this_name(places):
    places[0]("python")
    places[0]("python3", display_name="Python")
    assert (await resolve_kernel("python")).name == "python3"


PROVISIONED = {"kernel_provisioner": {"provisioner_name": "far-provisioner", "config": {"n": 1}}}


@pytest.mark.parametrize("provisioner", [{"provisioner_name": "local-provisioner"}, {"config": {}}, {}, None])
async def test_the_local_provisioner_is_this_machine(provisioner):
    spec = await resolve_kernel(KernelSpec(argv=ARGV, metadata={"kernel_provisioner": provisioner}))
    assert spec.argv == ARGV
    assert spec.provisioner is None


async def test_a_provisioner_is_known_by_its_kernelspec_or_is_the_default(places, monkeypatch):
    places[0]("mine")
    places[0]("far", metadata=PROVISIONED)
    monkeypatch.setenv("JUPYTER_DEFAULT_PROVISIONER_NAME", "near-provisioner")
    assert (await resolve_kernel("mine")).provisioner == "near-provisioner"
    assert (await resolve_kernel("far")).provisioner == "far-provisioner"
    assert (await resolve_kernel(ARGV)).provisioner is None  # a command says where it is started
    monkeypatch.setenv("JUPYTER_DEFAULT_PROVISIONER_NAME", "local-provisioner")
    assert (await resolve_kernel("mine")).provisioner is None
