"""Each row of the README's tables for those who come from another client: both sides run, and come to the same.

For each side of a table there is a program here, in which the cells of the table stand where ``<<row>>`` is, or
``<<row.line>>`` for one line of a cell. Both sides tell the same things, in the same order.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"

AROUND = """
import asyncio, json

BUSY = "print('started')\\nwhile True: pass"
NAME = "print(input('name: '))"
DIE = "import os; os._exit(3)"
code = "print('out')"
heard = []

def tell(value):
    print(json.dumps(value), flush=True)

async def raised(error, awaitable):
    try:
        await awaitable
    except error:
        return True

{}

asyncio.run(main())
"""

THEIRS, OURS = {}, {}

TOLD = {
    "jupyter_client": [
        True, ["out\n"], "ok", "in pieces\n", "ok", True, "Ada\n", "tcp", "ok", "KeyboardInterrupt", "NameError", True, False,
    ],
    "conkernelclient": [
        True, "ok", True, "out\n", "1", "out\n", "Ada\n", 2, 2, 1, 1, "fast", True, "out\n", "KeyboardInterrupt",
        "NameError", True,
    ],
    "nbclient": ["out\n", True, "out\n", True, True, True, True, True],
}  # fmt: skip

THEIRS["jupyter_client"] = """
from jupyter_client import AsyncKernelClient, AsyncKernelManager

def hook(message):
    if message["msg_type"] == "stream":
        heard.append(message["content"]["text"])

async def text_of(msg_id, enough=""):
    text = ""
    while True:
        message = <<5>>
        if message["parent_header"].get("msg_id") == msg_id:
            text += message["content"].get("text", "")
            if message["content"].get("execution_state") == "idle" or text and text == enough:
                return text

async def reply_to(msg_id):
    while True:
        message = <<6>>
        if message["parent_header"]["msg_id"] == msg_id:
            return message["content"]

async def main():
    global code, kc
    <<1>>
    tell(await km.is_alive())
    <<2>>
    tell(heard)
    reply = <<3>>
    tell(reply["content"]["status"])
    code = "print('in pieces')"
    msg_id = <<4>>
    tell(await text_of(msg_id))
    tell((await reply_to(msg_id))["status"])
    await kc.execute("code = 1", reply=True)
    reply = <<7>>
    tell("code" in reply["content"]["matches"])
    msg_id = kc.execute(NAME, allow_stdin=True)
    <<8>>
    tell(await text_of(msg_id))
    tell(<<9>>["transport"])
    path = km.connection_file
    <<10>>
    tell((await other.execute("1", reply=True))["content"]["status"])
    other.stop_channels()
    msg_id = kc.execute(BUSY)
    await text_of(msg_id, "started\\n")
    <<11>>
    tell((await reply_to(msg_id))["ename"])
    <<12>>
    tell((await kc.execute("code", reply=True))["content"]["ename"])
    tell(<<13>>)
    <<14>>
    tell(await km.is_alive())
"""

OURS["jupyter_client"] = """
import tempfile
from anykernel import *

def hook(output):
    heard.append(output.text)

async def answer(prompt, password):
    return "Ada"

async def main():
    global code
    with tempfile.TemporaryDirectory() as directory:
        <<1>>
            tell(kernel.is_alive)
            <<2>>
            tell(heard)
            result = <<3>>
            tell(result.status)
            code = "print('in pieces')"
            <<4>>
            text = ""
            <<5>>
                text += output.text
            tell(text)
            result = <<6>>
            tell(result.status)
            await kernel.execute("code = 1")
            reply = <<7>>
            tell("code" in reply.matches)
            code = NAME
            result = <<8>>
            tell(result.stdout)
            tell(<<9>>.transport)
            path = directory + "/kernel.json"
            kernel.connection.write(path)
            <<10>>
                tell((await other.execute("1")).status)
            execution = await kernel.submit(BUSY)
            async for output in execution:
                break
            <<11>>
            tell((await execution.wait()).error.ename)
            <<12>>
            tell((await kernel.execute("code")).error.ename)
            tell(<<13>>)
            <<14>>
            tell(kernel.is_alive)
"""

THEIRS["conkernelclient"] = """
from conkernelclient import DeadKernelError, JmsgQueues, reconnect, run_kernel

def answer(message):
    return "Ada"

async def main():
    global code
    <<1>>
        tell(await km.is_alive())
        reply = <<2>>
        tell(reply["content"]["status"])
        code = "1 / 0"
        try:
            <<3>>
        except AssertionError:
            tell(True)
        code = "print('out')"
        outputs = <<4>>
        tell(outputs[0]["text"])
        code = "x = '1'"
        <<5>>
        tell(await kc.eval_expr("x + ''"))
        code = "print('out')"
        text = ""
        <<6>>
            text += message["content"].get("text", "")
        tell(text)
        texts = []
        kc.on_jmsg = lambda message: texts.append(message["content"].get("text", ""))
        code = NAME
        <<7>>
        tell("".join(texts))
        tell(<<8>>)
        tell(<<9>>)
        <<10>>
        tell(await kc.eval_expr("x"))
        tell(<<11>>)
        <<12>>
        tell(await kc.eval_expr("__import__('os').environ['MODE']"))
        await kc.reply("code = 1")
        matches, start = <<13>>
        tell("code" in matches)
        <<14.1>>
        code = "print('out')"
        await kc.reply(code)
        while "text" not in (message := <<14.2>>)["content"]:
            pass
        tell(message["content"]["text"])
        run = kc.run(BUSY)
        while (await anext(run))["msg_type"] != "stream":
            pass
        <<15>>
        tell([m["content"]["ename"] async for m in run if m["msg_type"] == "execute_reply"][0])
        <<16>>
        tell((await kc.reply("code"))["content"]["ename"])
        tell(await raised(<<17>>, kc.reply(DIE)))
"""

OURS["conkernelclient"] = """
from anykernel import *

async def answer(prompt, password):
    return "Ada"

async def main():
    global code
    <<1>>
        tell(kernel.is_alive)
        result = <<2>>
        tell(result.status)
        code = "1 / 0"
        try:
            <<3>>
        except ExecutionError:
            tell(True)
        code = "print('out')"
        outputs = <<4>>
        tell(outputs[0]["text"])
        code = "x = '1'"
        <<5>>
        tell(await kernel.evaluate("x + ''"))
        code = "print('out')"
        text = ""
        <<6>>
            text += output.text
        tell(text)
        code = NAME
        result = <<7>>
        tell(result.stdout)
        tell(<<8>>)
        tell(<<9>>)
        <<10>>
        tell(await kernel.evaluate("x"))
        tell(<<11>>)
        <<12>>
        tell(await kernel.evaluate("__import__('os').environ['MODE']"))
        await kernel.execute("code = 1")
        reply = <<13>>
        tell("code" in reply.matches)
        <<14.1>>
            code = "print('out')"
            await kernel.execute(code)
            while "text" not in (message := <<14.2>>).content:
                pass
            tell(message.content["text"])
        execution = await kernel.submit(BUSY)
        async for output in execution:
            break
        <<15>>
        tell((await execution.wait()).error.ename)
        <<16>>
        tell((await kernel.execute("code")).error.ename)
        tell(await raised(<<17>>, kernel.execute(DIE)))
"""

NOTEBOOK = """
import nbformat
from nbformat.v4 import new_code_cell, new_notebook

notebook = new_notebook(cells=[new_code_cell(code)])
sources = [code, "1 / 0", BUSY, DIE]
"""

THEIRS["nbclient"] = f"""{NOTEBOOK}
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

async def main():
    global notebook
    <<1>>
    tell(notebook.cells[0].outputs[0].text)
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    cell, failing, busy, dying = notebook.cells
    <<2>>
        tell(await client.km.is_alive())
        <<3>>
        tell(cell.outputs[0].text)
        tell(await raised(<<6>>, client.async_execute_cell(failing, 1)))
        <<4>>
        await client.async_execute_cell(failing, 1)
        tell(failing.outputs[0].ename == "ZeroDivisionError")
        <<5>>
        tell(client.timeout == 1)
        tell(await raised(<<7>>, client.async_execute_cell(busy, 2)))
        await client.km.restart_kernel()
        await client.kc.wait_for_ready()
        tell(await raised(<<8>>, client.async_execute_cell(dying, 3)))
"""

OURS["nbclient"] = f"""{NOTEBOOK}
from anykernel import *

async def main():
    <<1>>
    tell(report.notebook.cells[0].outputs[0].text)
    cell, failing, busy, dying = (new_code_cell(source) for source in sources)
    <<2>>
        tell(kernel.is_alive)
        <<3>>
        tell(cell.outputs[0].text)
        tell(await raised(<<6>>, kernel.execute(failing.source, check=True)))
        cell = failing
        result = <<4>>
        tell(result.error.ename == "ZeroDivisionError")
        cell = new_code_cell("1")
        result = <<5>>
        tell(result.ok)
        tell(await raised(<<7>>, kernel.execute(busy.source, timeout=1)))
        tell(await raised(<<8>>, kernel.execute(dying.source)))
"""


def table(client):
    """The rows of a table: of each, the lines of code of the left cell, and of the right."""
    lines = (
        README.read_text().partition(f"\n| {client} | anykernel |\n|---|---|\n")[2].partition("\n\n")[0].splitlines()
    )
    return [[re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split("|")] for line in lines]


def run(template, cells, *options):
    """What the program with these cells tells, and what it writes to stderr; each cell stands in it once."""
    for row, lines in enumerate(cells, 1):
        places = re.findall(rf"<<{row}>>|<<{row}\.\d>>", template)
        whole, in_lines = [f"<<{row}>>"], [f"<<{row}.{number}>>" for number in range(1, len(lines) + 1)]
        assert places in (whole, in_lines), f"row {row} of {len(lines)} lines stands in {places}"
        for number, line in enumerate(lines, 1):
            template = template.replace(f"<<{row}.{number}>>", line)
        template = re.sub(
            rf"^( *)(.*)<<{row}>>", lambda m: m[1] + m[2] + f"\n{m[1]}".join(lines), template, flags=re.MULTILINE
        )
    assert "<<" not in template
    done = subprocess.run(
        [sys.executable, *options, "-c", AROUND.format(template)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.parametrize("client", TOLD)
def test_each_row_of_ours_does_what_theirs_does(client):
    assert run(OURS[client], [ours for _, ours in table(client)], "-W", "error") == (TOLD[client], "")


@pytest.mark.parametrize("client", TOLD)
def test_each_row_of_theirs_does_what_ours_does(client):
    if client == "conkernelclient" and sys.version_info < (3, 11):
        pytest.skip("conkernelclient needs Python 3.11")  # it uses asyncio.timeout
    told, _ = run(THEIRS[client], [theirs for theirs, _ in table(client)])
    assert told == TOLD[client]
