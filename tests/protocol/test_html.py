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
    " a \n b\t<i> c</i> ": "a b c",
    "<ul><li>x<li>y</ul>": "- x\n- y",
    "<ol>\n<li><p>x</p><p>more</p></li>\n<li></li></ol>z": "- x\nmore\n- z",
    "<table><tr><th>a</th><th>b</th></tr>\n<tr><td>1</td><td>2</td></tr></table>": "a | b\n1 | 2",
    "<table><tr><th><th>a<tr><th>0<td><div>1\n2</div><p>3</p></table>after": "| a\n0 | 1 2 3\nafter",
    "<table><tr><td>out<table><tr><td>in</td></tr></table></td></tr></table>": "out\nin",
    "<table><tr><td> <td>&nbsp;</table><td>alone": "alone",
    "<style>p {color: red}</style><SCRIPT>if (a < b) x('</p>')</SCRIPT >seen": "seen",
    "<script>'</scripted>'</script/>seen<title>no</title><template>no</template>": "seen",
    "<!-- <p>no</p> -->yes<!DOCTYPE html><?xml no?></ no>": "yes",
    "<!-->yes": "yes",
    "a &lt;b&gt; &amp; &#233; &nbsp;c": "a <b> & é  c",
    "&#" + "9" * 5000 + ";x&#x110000;&unknown;": "\ufffdx\ufffd&unknown;",
    "<pre>\n  x\n\n    y\n\n</pre>z": "  x\n\n    y\nz",
    "<pre>a\n\n\n<b>b</b></pre>": "a\n\n\nb",
    "<img alt='a picture' src='x'>": "a picture",
    "<img alt='' src=\"data:image/png;base64,AAAA\"><img src=x>": "<image/png>",
    "<svg><text>1</text></svg> <svg/>": "<image/svg+xml> <image/svg+xml>",
    """<a title="x > y" data-x='"/>' b = ">">seen</a>""": "seen",
    "<p it's>seen</p>": "seen",
    "1 < 2 and 3 > 2": "1 < 2 and 3 > 2",
    "<select><option>a<option>b</select><video>no</video>": "a\nb",
    "<script>never closed": "",
    "before<a title='never closed> <p>": "before",
    "before<!-- never closed >": "before",
    "<p": "",
    "": "",
}


@pytest.mark.parametrize(("source", "text"), CASES.items())
def test_html_reads_as_a_person_would_read_it(source, text):
    assert html_text(source) == text


PIECES = [
    *("<p>", "</p>", "<pre>", "</pre>", "<!--", "-->", "<script>", "</script>", "<td", "<tr>", "</table>", "<li>"),
    *(">", "a='", "&lt;", " ", "\n", "word"),
]


@given(st.lists(st.sampled_from(PIECES)))
@quick
def test_any_html_has_a_text(parts):
    assert "<script>" not in html_text("".join(parts))


REPEATED = [
    "<", "<!--", "<!-->", "</", "<?", "<script>", "<style", "</script", "<p><pre>", "<pre>\n", "\n", " ", "&", "&#", "&#9", "&lt",
    "a", "=", "<td>", "</td>x", "<tr>", "<table>", "<li>", "<svg/>", "<svg>", "<a ", "<a\n", "<a b='>'>", "<a b='", "<a b= ",
    "<img alt='", "<img alt='a'", "<img src=data:image/png>", "<img " + "alt=" * 9 + ">",
]  # fmt: skip


@pytest.mark.parametrize("piece", REPEATED)
def test_time_grows_with_the_length_and_not_with_its_square(piece):
    def seconds(count):
        start = time.process_time()
        html_text(piece * count)
        return time.process_time() - start

    count = 5000
    assert min(seconds(4 * count) for _ in range(3)) < 12 * max(0.002, min(seconds(count) for _ in range(3)))
