"""Every example of the README and of docs/ runs, and prints what its comments say; what they link and name is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .helpers.examples import examples_of, run_page, run_program, run_tests, save_files

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = {str(example): example for page in PAGES for example in examples_of(page)}


def of_kind(*kinds):
    return [pytest.param(example, id=name) for name, example in EXAMPLES.items() if example.kind in kinds]


def test_every_page_is_linked_from_the_readme_and_no_example_is_overlooked():
    text = README.read_text()
    for page in PAGES[1:]:
        assert f"(docs/{page.name}" in text, page
    assert len(EXAMPLES) > 30
    for page in PAGES:
        assert page.read_text().count("```python") == len(examples_of(page))


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.name) for page in PAGES if {"fragment", "cell"} & {e.kind for e in examples_of(page)}],
)
def test_the_inside_examples_of_a_page_print_what_their_comments_say(page, tmp_path):
    save_files(page, tmp_path)
    assert "\n".join(run_page(page, tmp_path)) == ""


@pytest.mark.parametrize("example", of_kind("program"))
def test_a_program_prints_what_its_comments_say(example, tmp_path):
    save_files(example.page, tmp_path)
    assert run_program(example, tmp_path) is None


@pytest.mark.parametrize("example", of_kind("test"))
def test_a_recipe_for_tests_passes_under_pytest(example, tmp_path):
    save_files(example.page, tmp_path)
    assert run_tests(example, tmp_path) is None


WRONG = """
```python
x = 1
await kernel.execute("y = 1")
print("as it says")  # as it says
```

```python
print("not as it says")  # as it says
```

```python
await kernel.execute(f"{x}")  # a name of the first
```

```python
await kernel.execute("y", check=True)  # a name of the first, in the kernel
```

```python
kernel.execute("never awaited")
```

```python
# In [1]:
import os
print("in a notebook")  # in a notebook
```

```python
# In [2]:
__import__("warnings").warn("as an error")
```

```python
# In [1]:
os  # another notebook's
```
"""


def test_an_example_that_does_not_do_what_it_says_is_found(tmp_path):
    page = tmp_path / "wrong.md"
    page.write_text(WRONG)
    told = {str(example): None for example in examples_of(page)}
    for text in run_page(page, tmp_path):
        told[text.split()[0]] = text
    ok, wrong, borrowed, borrowed_there, forgotten, fine, warned, other = told.values()
    assert ok is None
    assert "printed ['not as it says']" in wrong
    assert "NameError: name 'x' is not defined" in borrowed
    assert 'wrong.md", line 13' in borrowed
    assert "NameError: name 'y' is not defined" in borrowed_there
    assert "was never awaited" in forgotten
    assert fine is None
    assert "UserWarning: as an error" in warned
    assert "NameError" in other


def test_a_program_or_a_test_that_does_not_do_what_it_says_is_found(tmp_path):
    page = tmp_path / "wrong.md"
    page.write_text(
        "```python\ndef main(): ...\n__import__('anyio').sys.run(main)\n```\n"
        "```python\n# test_it.py\ndef test_it(): assert False\n```\n"
    )
    program, test = examples_of(page)
    assert "AttributeError" in run_program(program, tmp_path)
    save_files(page, tmp_path)
    assert "1 failed" in run_tests(test, tmp_path)


def slug(heading):
    """A heading's anchor, as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def headings(page):
    return re.findall(r"^##+ (.*)$", without_code(page.read_text()), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", without_code(page.read_text())):
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert path.startswith("https://") or linked.exists(), target
        assert not anchor or anchor in map(slug, headings(linked)), target


def test_the_contents_list_every_section_in_order():
    sections = re.findall(r"^## (.*)$", without_code(README.read_text()), re.MULTILINE)
    contents = without_code(README.read_text()).partition("## Contents")[2].partition("\n## ")[0]
    assert re.findall(r"\(#([^)]+)\)", contents) == [slug(s) for s in sections if s != "Contents"]


def test_the_rooms_and_tests_that_the_readme_names_are_there():
    named = re.findall(r"`((?:anykernel|tests|docs|benchmarks)/[\w./-]+)`", README.read_text())
    assert len(named) > 10
    for path in named:
        assert (ROOT / path).exists(), path


def test_the_readme_is_read_in_five_minutes():
    prose = re.sub(r"^\|.*$", "", without_code(README.read_text()), flags=re.MULTILINE)
    assert len(prose.split()) < 5 * 240  # words a minute; code and tables are looked at, not read through


def test_the_readme_has_one_test_command_as_the_checks_look_for_it():
    assert len(re.findall(r"^python3 -m venv .* -m pytest", README.read_text(), re.MULTILINE)) == 1
    assert len(re.findall(r"^python3 -m venv .* -m anykernel$", README.read_text(), re.MULTILINE)) == 1


def test_no_page_says_to_install_what_is_another_project():
    for page in [*PAGES, ROOT / "CHANGELOG.md"]:
        assert "pip install anykernel" not in page.read_text().replace("anykernel-client", "")


def test_the_demonstration_runs():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "anykernel"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert len(re.findall(r"task \d\d got", done.stdout)) == 8
    assert "6 * 7 is 42" in done.stdout
