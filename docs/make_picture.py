"""Draws the picture of the README: one real stream, its forecast fan, and what came true.

usage: python docs/make_picture.py    (the public data set beside the checkout)

A backtest of the hourly request rate of an e-commerce API (Microsoft Cloud Monitoring Dataset, MIT licence), trained
once, on its first half; the fans drawn are those published at the origins marked.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import matplotlib as mpl
import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import numpy as np

from forecaster.app import build_backtest
from forecaster.backtest.recording import Recording
from forecaster.backtest.result import training_points
from forecaster.settings import load_settings
from forecaster.transports.tables import TableLayout, open_tables

TABLE = Path(__file__).resolve().parents[2] / "shared/data/cloud_monitoring/ecommerce-api-incoming-rps/api-01.csv"
IMAGE = Path(__file__).parent / "images" / "fan.png"
HORIZON = 24
INK, BLUE, GREY = "#1c2333", "#2458c7", "#8a93a6"


def main() -> None:
    settings = load_settings(
        {
            "forecast": {"horizon": HORIZON, "quantiles": [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95], "seasons": [24]},
            "training": {"window": "36500d"},
        }
    )
    layout = TableLayout(time_column="TimeStamp", value_column="Value")
    with tempfile.TemporaryDirectory() as scratch:
        backtest = build_backtest(
            settings, Recording(open_tables([TABLE], layout)), layout=layout, directory=Path(scratch)
        )
        with contextlib.closing(backtest):
            backtest.play(training_points(backtest, warmup=0.5, every_rows=0))
            (stream,) = backtest.collector.streams({})
    times, values, made = stream.times, stream.values, stream.quantiles

    origins = [int(0.8 * len(times)) + k for k in (0, 33, 66)]
    first, last = origins[0] - 48, origins[-1] + HORIZON + 1
    when = mdates.epoch2num(times) if hasattr(mdates, "epoch2num") else times / 86_400
    mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 10, "axes.edgecolor": GREY, "text.color": INK})
    figure, axes = plt.subplots(figsize=(11, 4.2), dpi=130)
    for origin in origins:
        ahead = when[origin : origin + HORIZON + 1]
        fan = np.vstack([np.full(made.shape[2], values[origin]), made[origin]])
        for low, high, shade in ((0, 6, 0.16), (1, 5, 0.22), (2, 4, 0.34)):
            axes.fill_between(ahead, fan[:, low], fan[:, high], color=BLUE, alpha=shade, lw=0)
        axes.plot(ahead, fan[:, 3], color=BLUE, lw=1.8)
        axes.plot(when[origin], values[origin], "o", color=BLUE, ms=5)
        axes.axvline(when[origin], color=GREY, lw=0.8, ls=":")
    axes.plot(when[first:last], values[first:last], color=INK, lw=1.3)
    axes.set_xlim(when[first], when[last - 1])
    axes.xaxis.set_major_locator(mdates.HourLocator(byhour=[0, 12]))
    axes.xaxis.set_major_formatter(mdates.DateFormatter("%a %H:%M"))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=GREY)
    axes.set_title(
        "Incoming requests of a shop\u2019s API, hourly: what came (black), and three 24-hour forecasts as published",
        loc="left",
        fontsize=10.5,
    )
    axes.text(
        0.005, 0.03, "bands: 50, 80 and 90 %   dotted: origin of the forecast", transform=axes.transAxes, color=GREY
    )
    figure.tight_layout()
    IMAGE.parent.mkdir(exist_ok=True)
    figure.savefig(IMAGE)


if __name__ == "__main__":
    main()
