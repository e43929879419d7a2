"""Every example of the README runs, and prints what its comments say."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

# What stands around the examples that are only the inside of a block.
AROUND = """
import anyio
from anykernel import *

async def main():
    async with open_kernel() as kernel:
{}

anyio.run(main)
"""


def test_the_readme_has_examples():
    assert len(EXAMPLES) > 8
    assert "pip install anykernel" not in README.replace("anykernel-client", "")


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_prints_what_its_comments_say(example):
    expected = re.findall(r"^ *print\(.*\)  # (.*)$", example, re.MULTILINE)
    program = example if ".run(main)" in example else AROUND.format(textwrap.indent(example, 8 * " "))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == expected


def test_the_demonstration_runs():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "anykernel"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert len(re.findall(r"task \d\d got", done.stdout)) == 8
    assert "6 * 7 is 42" in done.stdout
