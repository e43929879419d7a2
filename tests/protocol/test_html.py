"""HTML as text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anykernel._protocol.html import html_text

from ..helpers.strategies import quick

CASES = {
    "<p>one</p><p>two <b>three</b></p>": "one\ntwo three",
    "a<br>b<br/>c": "a\nb\nc",
    "<ul><li>x<li>y</ul>": "- x\n- y",
    "<table><tr><th>a</th><th>b</th></tr>\n<tr><td>1</td><td>2</td></tr></table>": "a | b\n1 | 2",
    "<style>p {color: red}</style><SCRIPT>if (a < b) x('</p>')</SCRIPT >seen": "seen",
    "<!-- <p>no</p> -->yes<!DOCTYPE html>": "yes",
    "a &lt;b&gt; &amp; &#233; &nbsp;c": "a <b> & é \xa0c",
    "<pre>  x\n    y</pre>z": "  x\n    y\nz",
    "<img alt='a picture' src='x'>": "a picture",
    "1 < 2 and 3 > 2": "1 < 2 and 3 > 2",
    "<script>never closed": "",
    "<p": "",
    "": "",
}


@pytest.mark.parametrize(("source", "text"), CASES.items())
def test_html_reads_as_a_person_would_read_it(source, text):
    assert html_text(source) == text


@given(
    st.lists(
        st.sampled_from(
            ["<p>", "</p>", "<pre>", "</pre>", "<!--", "-->", "<script>", "</script>", "<td", ">", "a", "&lt;", " "]
        )
    )
)
@quick
def test_any_html_has_a_text(parts):
    assert "<script>" not in html_text("".join(parts))


@pytest.mark.parametrize(
    "piece", ["<", "<!--", "<script>", "<style", "<p><pre>", "&", "<td>", "</td>x", "<img alt='", "<a b='>'>"]
)
def test_time_grows_with_the_length_and_not_with_its_square(piece):
    def seconds(count):
        start = time.process_time()
        html_text(piece * count)
        return time.process_time() - start

    count = 20_000
    assert min(seconds(4 * count) for _ in range(3)) < 12 * max(0.002, min(seconds(count) for _ in range(3)))
