"""The chart: CPU time of each client relative to raw pyzmq, one group of bars for each question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .clients import CLIENTS, FLOOR
from .harness import Table

# On light and on dark pages alike: the background is transparent, and the greys are half-way.
INK, GRID = "#7d8590", "#7d859055"
COLOURS = {
    "anykernel asyncio": "#2f81f7",
    "anykernel uvloop": "#6ba6fa",
    "anykernel trio": "#a5c8fc",
    "conkernelclient": "#d29922",
    "jupyter_client async": "#db6d5a",
    "jupyter_client blocking": "#eaa79c",
    "nbclient": "#a371d5",
}
WIDTH = 0.11


def draw(tables: Sequence[Table], where: dict[str, Any], paths: Sequence[Path]) -> None:
    """Draw the tables that have a place in the chart, into each of the paths; their suffixes say how."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    groups = [table for table in tables if table.chart]
    style = {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "anykernel",
        "font.family": "sans-serif",
        "font.size": 10,
        **dict.fromkeys(("text.color", "xtick.color", "ytick.color", "axes.labelcolor"), INK),
    }
    with plt.rc_context(style):
        figure, axes = plt.subplots(figsize=(11, 4.6))
        highest = 0.0
        for number, client in enumerate(name for name in CLIENTS if name != FLOOR):
            offset = (number - (len(COLOURS) - 1) / 2) * WIDTH
            for group, table in enumerate(groups):
                ratio = table.compare(client, FLOOR, "cpu")
                if ratio is None:
                    continue
                highest = max(highest, ratio)
                axes.bar(group + offset, ratio, WIDTH * 0.88, color=COLOURS[client])
                axes.text(group + offset, ratio, f" {ratio:.1f}", ha="center", va="bottom", fontsize=8, rotation=90)
            axes.bar(0, 0, color=COLOURS[client], label=client)
        axes.axhline(1, color=INK, linewidth=1, linestyle="--", zorder=0.5, label="raw synchronous pyzmq")
        axes.set_xticks(range(len(groups)), [table.chart for table in groups])
        axes.set_ylim(0, highest * 1.15)
        axes.set_ylabel("CPU time of the client process,\nrelative to raw pyzmq (lower is better)")
        axes.grid(axis="y", color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(INK)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.05), ncols=4, frameon=False, labelcolor=INK, fontsize=9)
        versions = where["versions"]
        names = ", ".join(
            f"{name} {versions[name]}" for name in ("conkernelclient", "jupyter_client", "nbclient") if name in versions
        )
        axes.set_title(f"{where['machine']}, Python {where['python']}, {names}", fontsize=8, pad=6)
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(path, transparent=True, bbox_inches="tight", dpi=160, metadata=metadata)
        plt.close(figure)
