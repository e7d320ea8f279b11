"""The reliability diagram of an expert: what it says how often is true of (DeGroot and Fienberg 1983)."""

from __future__ import annotations

import json
from pathlib import Path

from fovea.files import whole


def draw_reliability(folder: Path) -> Path:
    """Draw the reliability.json of an expert's folder into reliability.png there; returns the picture's path.

    A panel a label. A dot is a bin of probabilities, the larger the more studies it holds, before calibration and
    after.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels = json.loads((folder / "reliability.json").read_text())
    columns = min(max(len(labels), 1), 3)
    rows = -(-max(len(labels), 1) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.4 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(labels) :]:
        axis.set_visible(False)
    for axis, (label, sides) in zip(axes, labels.items(), strict=False):
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
        for (name, bins), colour in zip(sides.items(), ("tab:orange", "tab:blue")[-len(sides) :], strict=True):
            said, true, studies = zip(*bins, strict=True)
            sizes = [20 + 200 * n / sum(studies) for n in studies]
            axis.plot(said, true, color=colour, linewidth=1, alpha=0.6)
            axis.scatter(said, true, s=sizes, color=colour, alpha=0.6, label=name)
        axis.set(title=label.replace("_", " "), xlim=(-0.05, 1.05), ylim=(-0.05, 1.05), aspect="equal")
    if labels:
        legends = (axis.get_legend_handles_labels() for axis in axes)
        figure.legend(*max(legends, key=lambda pair: len(pair[0])), loc="outside upper center", ncols=2, frameon=False)
    figure.supxlabel("probability", fontsize="medium")
    figure.supylabel("share of studies that show it", fontsize="medium")
    target = folder / "reliability.png"
    with whole(target) as partial:
        figure.savefig(partial, format="png", dpi=110)
    return target
