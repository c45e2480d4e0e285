"""What pictures of several reports share: colours, axes, fans of forecasts."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from forecaster.evaluation.fans import Fans
from forecaster.evaluation.summary import central_intervals

OURS, NAIVE, SEASONAL, ACTUAL, OTHER = "#1f5fa8", "#c0504d", "#d79b28", "#222222", "#6a8f4f"


def fan_picture(fans: Fans, levels: tuple[float, ...], title: str) -> Figure:
    """Forecasts of one stream over what came."""
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axes = figure.subplots()
    times = np.array(fans.times).astype("datetime64[s]")
    axes.plot(times, fans.values, color=ACTUAL, linewidth=1.0, label="actual")
    for number, (origin, quantiles) in enumerate(zip(fans.origins, fans.quantiles, strict=True)):
        ahead = times[origin + 1 : origin + 1 + len(quantiles)]
        grid = np.array(quantiles)
        for low, high, nominal in central_intervals(levels):
            axes.fill_between(ahead, grid[:, low], grid[:, high], color=OURS, alpha=0.12 + 0.2 * (1 - nominal), lw=0)
        axes.plot(ahead, grid[:, len(levels) // 2], color=OURS, linewidth=1.4, label="median" if number == 0 else None)
        at = times[origin : origin + 1]
        axes.vlines(at, 0, 1, transform=axes.get_xaxis_transform(), color=OURS, linewidth=0.6, linestyle=":")
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    axes.tick_params(labelsize=8)
    return plain(figure)


def plain(figure: Figure) -> Figure:
    """The figure without the frame's upper and right side."""
    for axes in figure.axes:
        assert isinstance(axes, Axes)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
