"""Text as a terminal would show it. No I/O."""

from __future__ import annotations

import re

__all__ = ["printable", "terminal_text"]

# CSI sequences (colours, cursor; but not those that are carried out: "erase in line", and the cursor up and down), strings
# (titles, links, graphics; ended by BEL or ST), other escapes (character sets, saved cursor), and an escape character
# that introduces nothing.
_ANSI = re.compile(
    r"\x1b(?:\[(?![012]?K|[0-9]{0,4}[AB])[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]+[0-~]"
    r"|(?!\[[012]?K|\[[0-9]{0,4}[AB])[0-~]|(?!\[))"
)
_UP_OR_DOWN = re.compile(r"\x1b\[[0-9]{0,4}[AB]")
# All controls but the line's end and the tab; among those from 0x80 on are some that begin sequences, too.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MOVES = re.compile(r"(\r|\x08|\n|\x1b\[[012]?K|\x1b\[[0-9]{0,4}[AB])")


def terminal_text(text: str) -> str:
    """What a terminal would show: ANSI sequences removed; movements of the cursor and erasures carried out."""
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    if "\r" not in text and "\b" not in text and "\x1b" not in text:
        return text
    text = text.replace("\r\n", "\n")
    # Lines take much more memory as cells than as text: only those that need it, where none depends on another.
    pieces = [text] if _UP_OR_DOWN.search(text) else text.split("\n")
    return "\n".join(_on_screen(piece) if _MOVES.search(piece) else piece for piece in pieces)


def printable(text: str) -> str:
    """What a terminal would show, in so far as it does no harm to one: for errors, whose text people print as it is."""
    return _CONTROLS.sub("", terminal_text(text))


def _on_screen(text: str) -> str:
    lines, row, column = [_Line()], 0, 0
    for part in _MOVES.split(text):
        if part == "\n":
            row, column = row + 1, 0
        elif part == "\r":
            column = 0
        elif part == "\b":
            column = max(0, column - 1)
        elif part.startswith("\x1b"):
            if part[-1] == "K":
                lines[row].erase(part[2], column)
            else:
                count = int(part[2:-1] or 1)
                row = max(0, row - count) if part[-1] == "A" else min(row + count, len(lines) - 1)
        elif part:
            lines[row].write(part, column)
            column += len(part)
        if row == len(lines):
            lines.append(_Line())
    return "\n".join(line.text for line in lines)


class _Line:
    """A line of a terminal. Takes time in proportion to what is done to it: nothing is erased twice."""

    __slots__ = ("_blank", "_cells", "_start")

    def __init__(self) -> None:
        self._cells: list[str] = []
        self._start = 0  # of the cells: before it, all is blank
        self._blank = 0  # as far as is known, all before it is blank

    @property
    def text(self) -> str:
        return " " * self._start + "".join(self._cells) if self._cells else ""

    def write(self, text: str, column: int) -> None:
        cells = self._cells
        if not cells:
            self._start = self._blank = column
        elif column < self._start:
            cells[:0] = " " * (self._start - column)
            self._start = column
        column -= self._start
        cells.extend(" " * (column - len(cells)))
        cells[column : column + len(text)] = text
        self._blank = min(self._blank, column + self._start)

    def erase(self, mode: str, column: int) -> None:
        """Erase to the end (``"0"``, or none), from the beginning (``"1"``), or all of it (``"2"``)."""
        start = self._start
        if mode == "2":
            self._cells.clear()
        elif mode == "1":
            end = min(column + 1, start + len(self._cells))
            if self._blank < end:
                first = max(self._blank, start)
                self._cells[first - start : end - start] = " " * (end - first)
                self._blank = end
        else:
            del self._cells[max(0, column - start) :]
