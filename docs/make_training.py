"""Writes docs/training.md from benchmarks/results/training.json: ``python docs/make_training.py`` (``--check``)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "benchmarks"))

from training_techniques import RESULT, TECHNIQUES  # noqa: E402 - it lies beside the checkout's other scripts

KNOWN_AHEAD = RESULT.with_name("known_ahead.json")
FLAGGED = RESULT.with_name("flagged_anomalies.json")
FORMER = RESULT.with_name("former_champion.json")
COST = RESULT.with_name("training_cost.json")

_HEAD = """\
# Training

How a model is trained, which settings change it, and what each of them was worth on real series. Settings are under
`training` in [settings.md](settings.md); `forecaster train --set training.outliers=hampel` sets any of them for
once.

## What can be chosen

| technique | settings | on by default |
|---|---|---|
| optimiser AdamW, Adam, SGD with momentum | `optimiser`, `learning_rate`, `momentum`, `batch` | AdamW |
| schedule one-cycle, cosine, constant | `schedule` | one-cycle |
| gradient clipping | `clip` | 1.0 |
| L1, L2, dropout | `l1`, `l2`, `dropout` | L2 1e-4, dropout 0.1 |
| early stopping on the newest 15 %, an H-step gap before it | `patience` | yes |
| mean of the weights passed through | `averaging` | yes |
| forecasts learnt at 24 ticks of a window drawn at random, or at every one (forking sequences) | `origins` | 24 |
| windows with burn-in, truncated back-propagation | `context_length`, `burn_in`, `backprop_steps` | 264 and 96 ticks |
| cells RNN, LSTM, GRU, stacked | `model.cell`, `model.layers`, `model.hidden` | one GRU layer of 64 |
| outliers capped or masked by Hampel, z-score or range | `outliers`, `outlier_*` | no |
| missing targets filled: last, interpolated, by season | `missing`, `fill_steps` | no, they bear no loss |
| periods left out, of all streams or of one | `exclude`; `topics.feedback` | none |
| altered copies: block bootstrap, magnitude warp, jitter | `augment_*` | no |
| window mix-up | `mix_up` | no |
| a teacher of several networks, and distillation | `teacher_*` | no |
| transfer: start from a named model, body held at first | `start_from`, `freeze_steps` | no |
| the best covariates alone | `covariates_kept`, `covariate_score` | all are shown |
| flagged anomalies capped or masked | `anomalies` | no |
| the former champion as an expert beside its successor | `promotion.keep_former` | no |
| training asked for by drift | `drift`, `drift_span`, `drift_pause` | no |
| streams in groups, each with a champion of its own | `groups` | all are one group |

* **Inputs are never cleaned.** Cleaning acts on targets of the training part. What the network sees is made by the
  serving encoder from the readings as they came, bit for bit, because serving meets the wild readings too; early
  stopping and the verdict are scored on raw readings. Outliers are judged by values before them alone, and nothing
  is filled across the end of the training part.
* **Flagged anomalies.** With `anomalies = "cap"` a target in an anomaly, from the reading that raised it up to the one
  that cleared it, moves to the nearest bound of Hampel's rule over values before it that were not flagged;
  `mask` leaves it out. They are the detector's that serves: from the topic of anomalies (`--from-topic`, the trainer),
  or from the engine itself (embedded, backtests). Of files nothing is flagged.
* **Everything is made of the training part alone**: cleaned targets, copies, bootstraps of a teacher's members, the
  choice of covariates. A test changes the readings after it and asks for the same weights.
* **The student serves.** With `teacher_members = 5` five networks are trained on other seeds and block bootstraps;
  their mean quantiles are the teacher; the network that serves minimises pinball plus 0.5 times its distance to
  them. The report has teacher, student and plain model side by side. It costs members + 2 trainings.
* **Resuming.** `forecaster train --checkpoint DIR` keeps weights, optimiser and generators at each look at the
  early-stopping stretch. Killed and started again with the same arguments it ends with the same bits; after other
  arguments it refuses.
* **Report.** `forecaster train --report FILE.html` writes one file with the loss curves, scores by lead beside the
  naive forecasts and the champion, the share of values below each quantile, and the newest forecasts of some streams.
* **Files.** CSV, JSON lines, Parquet; columns named in `readings.covariates` stand beside the value
  (`--set 'readings.covariates=["TEMP","PRES"]'`); of columns named in `readings.known_ahead` each row is told what
  the rows after it hold ([formats](formats.md#readings)).
* **Known ahead.** Lists of `readings.known_ahead` enter the network at its head, and the linear forecast, as they were
  known when each reading was made; a history holds them with its readings, 8 bytes a number
  ([0024](decisions/0024-what-is-known-of-the-leads-enters-at-the-head.md)). Altered copies of such streams, and the
  data of a teacher's members, are not drawn anew in blocks: values would be torn from their plan. Another number of
  fields, or another horizon, is a cold start; a transfer then takes the body alone.
* **Device.** CUDA where it is present (`device`), else the CPU on one thread. The tests run on the CPU.

## What is read of the topic

`forecaster train --from-topic`, and the trainer, read `window` of the readings within a budget
([0022](decisions/0022-history-within-a-budget-newest-first.md)):

* **Memory.** At most `history_bytes` of readings are held. Of more streams than fit, or than `max_streams`, those that
  come first in an order drawn from `seed` are kept, each with all of its newest `max_readings_per_stream`; the order of
  partitions and polls changes nothing. The same bound holds for what an embedded daemon and a backtest remember.
* **Time.** The newest blocks of all partitions come first; after `history_seconds` what is older is left out.
* **Said.** The log (`history read`) has records, streams taken and seen, bytes, seconds and what the window was cut by;
  the model's lineage (`forecaster models show`) has the offsets, `512 of 3,000` streams, and what it was cut by.
* **Cache.** `history_cache` names a directory in which decoded blocks of 65,536 offsets are kept, so that the next
  training reads what is new alone. A block that is damaged, or of another topic (one made anew is another), other
  `readings` settings or another version, is not used: it is read again, with a warning where it was damaged or is from
  elsewhere. The topic alone is the truth; the directory may be deleted at any time.

## `forecaster tune`

`forecaster tune --data ETTh1.csv --columns '*' --horizon 24 --out tuned/` draws 12 configurations from a grid
(`--space training.l1=0,1e-5` names another), fits each for 50 steps on three rolling-origin folds with an H-step
gap, the best third for 150 and the best ninth for 450. Each rung is a whole fit with a schedule of its own; early
stopping within a fold looks at the fold's own training rows. `--grid` tries every combination at full length,
`--jobs 2` uses two processes and finds the same. Every loss is in `journal.log` there as soon as it is known: the
same command goes on where it was stopped. The best configuration is there as a settings file, the table as JSON and,
with a picture of each setting's values, as report.html. `--group pumps` searches on that group's streams, under its own
settings; as all groups share `model`, only `training` is searched, and best.toml is the group's entry.

## Groups

```toml
[[groups]]
name = "hr"
streams = ["ward-*"]
fields = ["pulse"]              # of readings.fields
preset = "heart-rate"

[[groups]]
name = "rooms"
streams = ["room-*", "hall-[0-9]"]
season = "1d"
start_from = "gru-20260101T000000-ab12cd"
training = { window = "21d", every = "1d" }
```

The first group that fits a stream takes it; the rest is the group `default`. Each has its own champion, trainings,
trials and drift; all share horizon, quantiles, covariates, what is known ahead and the network's shape
([0013](decisions/0013-a-group-is-a-champion-not-a-pipeline.md)).

* **Transfer.** `start_from` names a model, of whichever group, that a group's first training begins with; its body is
  held for `training.freeze_steps`.
* **Presets** give season, anomaly preset and cleaning: `heart-rate` no season, three days, outliers masked by Hampel;
  `sensor` a season of a day, four weeks, short gaps interpolated; `server-metrics` a season of a day, two weeks. They
  are chosen by what such streams are like, not measured; `series/group_presets.py` has the reasons.
* **By hand.** `forecaster train --from-topic --group hr`, `forecaster trainer --once --group hr`,
  `forecaster models promote VERSION --group hr`, `rollback --group hr`. `models list` says whom each model serves.
* **Enough to learn from.** `training.min_readings` of a group counts that group's readings: workers that train by
  themselves count as they go; under the trainer service a training that finds fewer in its window fails and says so.
* **Fairness.** Trainings are one at a time. Of groups that are due, by their own `every`, drift or command, the one
  that has used the least processor time is next; of equals the one that has waited longest.
* **Backtests** train every group at each training point.
* **A change** of names, patterns, fields or their order is refused by state that was kept under others:
  `forecaster reset --keep-offsets` begins without it.

**Several trainers.** `forecaster trainer` may run more than once for the same workers: trainers divide the groups of
streams among them by the partitions each holds of the consumer group `<kafka.group_id>-trainer`, which their user
must have the right to read. With one group of streams the second one stands by. `--once` joins nothing.

**Two who decide.** A training compares its challenger with the champion it found at its beginning. If another serves
at its end, promoted or rolled back by somebody else, it is refused with the reason `champion changed`, and the next
training compares with that one.

## Drift

ADWIN (δ = 0.002) and Page-Hinkley watch the median's pinball loss in units of each stream's scale, averaged over
`drift_span` of event time and brought to 0…1 by loss/(1 + loss). An alarm asks for a training and is followed by
`drift_pause` of silence. The training that follows promotes a challenger that is **not worse** than the champion,
where any other has to be better: that it loses 2 % more or worse has to be ruled out at p < 0.1, and it has to beat
the last value ([0023](decisions/0023-after-drift-no-worse-is-enough.md)). `forecaster train --drift` asks for the
same by hand. On 400,000 values of noise that never changes (80 series of 5,000 values, half of them uniform, half 0
or 1 with 5 % ones) ADWIN gave no alarm; its bound of 0.002 at each of 50,000 tests would allow 100. Losses of
overlapping forecasts are not independent: choose `drift_span` about as long as the horizon.

## What each was worth

`python benchmarks/training_techniques.py` trains with and without each technique on the first 60 % of the rows and
scores the network alone, without the engine's mixing and calibration, on the next 20 % at every step: mean pinball
over 24 leads and three quantiles in units of each stream's scale, every stream alike. The second column is against
the defaults on the same seed, less is better; mean ± standard deviation over seeds. Steps: {steps}.
"""

_SAME = {
    "no_clip": "gradients are hardly ever longer than 1; clipping is there for series with spikes that these have not",
    "no_stopping": "the best weights are kept in either case; what patience saves is the seconds",
    "last_weights": "the last weights were the best",
    "no_l2": "a decay of 1e-4 over so few steps is lost in rounding",
    "filled": "there is next to no gap to fill",
    "filled_by_model": "there is next to no gap to fill",
    "hampel": "no value is that far out",
}
"""Why a technique may leave a training as it is."""

_NOTHING = 1e-4
"""A difference in pinball loss below it is rounding, or a step or two of four hundred."""

_SCENARIOS = {
    "etth1": "### ETTh1: seven hourly streams, {n}",
    "few": "### A young group: LUFL, LULL and OT of ETTh1, three weeks, {n}",
    "pm25": "### Beijing PM2.5: one hourly stream with gaps, six covariates, {n}",
}


def render() -> str:
    """The page, from the result file."""
    if not RESULT.exists():
        return _HEAD.replace("{steps}", "not measured yet")
    found = json.loads(RESULT.read_text())
    parts = [_HEAD.replace("{steps}", str(found["steps"]))]
    for case, title in _SCENARIOS.items():
        by_technique = {name: _cells(found["cells"], case, name) for name in TECHNIQUES}
        known = {name: cells for name, cells in by_technique.items() if cells}
        if "plain" not in known:
            continue
        seeds = ", ".join(sorted(known["plain"]))
        parts.append(f"\n{title.format(n=f'seeds {seeds}' if len(known['plain']) > 1 else f'seed {seeds}')}\n\n")
        parts.append(f"`python benchmarks/training_techniques.py --scenarios {case}`\n\n")
        parts.append(_table(known))
        parts.append(_same(known))
        parts.append(_modes(known))
        parts.append(_side_by_side(known))
    measured = {key.split("/")[1] for key in found["cells"]}
    if waiting := [shown for name, (shown, _) in TECHNIQUES.items() if name not in measured]:
        parts.append(f"\nNot measured yet: {'; '.join(waiting)}.\n")
    if KNOWN_AHEAD.exists():
        parts.append(_known_ahead(json.loads(KNOWN_AHEAD.read_text())))
    if FLAGGED.exists():
        parts.append(_flagged(json.loads(FLAGGED.read_text())))
    if FORMER.exists():
        parts.append(_former(json.loads(FORMER.read_text())))
    if COST.exists():
        parts.append(_cost(json.loads(COST.read_text())))
    return "".join(parts)


def _known_ahead(found: dict[str, Any]) -> str:
    """What `benchmarks/known_ahead.py` found: errors by lead, means over seeds and their spread."""
    seeds = list(next(iter(found["cells"].values())))
    who = {"mixture": "published", "network": "network alone", "linear": "linear forecast alone"}
    lines = [
        "\n### A plan known ahead: made-up hourly streams\n",
        "`python benchmarks/known_ahead.py`\n",
        f"{found['streams']} streams, {found['rows']:,} rows, that follow shifts which begin and end at random; one "
        f"training of {found['steps']} steps after 30 % of the rows; seeds {', '.join(seeds)}. Mean absolute error as "
        "a share of the last value's, by lead:\n",
        f"| told of the shifts | | {' | '.join(map(str, found['leads']))} |",
        f"|---|---|{'---|' * len(found['leads'])}",
    ]
    for told, by_seed in found["cells"].items():
        for name, shown in who.items():
            columns = zip(*(cell[name] for cell in by_seed.values()), strict=True)
            lines.append(f"| {told} | {shown} | {' | '.join(_spread(list(column), '.3f') for column in columns)} |")
    return "\n".join(lines) + "\n"


def _flagged(found: dict[str, Any]) -> str:
    """What `benchmarks/flagged_anomalies.py` found."""
    lines = [
        "\n### Flagged anomalies: server metrics of the Numenta benchmark\n",
        "`python benchmarks/flagged_anomalies.py`\n",
        f"Through the whole engine, three trainings a run; seeds {', '.join(found['keep'])}. Less is better; changes "
        "against `keep` on the same seed.\n",
        "| `anomalies` | MAE of the last value's | scaled quantile loss | change of it |",
        "|---|---|---|---|",
    ]
    for treatment, by_seed in sorted(found.items(), key=lambda item: item[0] != "keep"):
        columns = [_spread([cell[name] for cell in by_seed.values()], ".4f") for name in ("relative_naive", "sql")]
        change = [100 * (cell["sql"] / found["keep"][seed]["sql"] - 1) for seed, cell in by_seed.items()]
        against = "" if treatment == "keep" else f"{_spread(change, '+.2f')} %"
        lines.append(f"| `{treatment}` | {' | '.join(columns)} | {against} |")
    return "\n".join(lines) + "\n"


def _former(found: dict[str, Any]) -> str:
    """What `benchmarks/former_champion.py` found: losses after a switch against the former champion going on alone."""
    titles = {
        "warm": "trained on from the former one, as in service",
        "alike": "trained from nothing on another seed",
        "astray": "of other streams, promoted by mistake",
    }
    seeds = list(found["switch"])
    spans = sorted(found["switch"][seeds[0]]["warm"]["stays"], key=int)
    lines = [
        "\n### The former champion beside its successor: ETTh1\n",
        "`python benchmarks/former_champion.py`\n",
        "Pinball of what is published after a successor took over, against the former champion going on alone; less is "
        f"better. Seeds {', '.join(seeds)}.\n",
        f"| successor | `promotion.keep_former` | {' | '.join(f'first {span} readings' for span in spans)} |",
        f"|---|---|{'---|' * len(spans)}",
    ]
    for kind, title in titles.items():
        for who, shown in (("alone", "off"), ("beside", "on")):
            changes = [
                [100 * (cell[kind][who][span] / cell[kind]["stays"][span] - 1) for cell in found["switch"].values()]
                for span in spans
            ]
            told = " | ".join(f"{_spread(change, '+.2f')} %" for change in changes)
            lines.append(f"| {title} | {shown} | {told} |")
    without, beside = (
        [error for name, error in found["online"].items() if name.endswith(f"/{how}")] for how in ("without", "with")
    )
    if without and beside:
        paired = ", ".join(name.removesuffix("/with") for name in found["online"] if name.endswith("/with"))
        lines.append(
            f"\nOnline protocol over 24 leads, seeds {paired}, mean squared error: {_spread(without, '.4f')} without, "
            f"{_spread(beside, '.4f')} with it "
            "([0030](decisions/0030-the-former-champion-may-answer-beside-its-successor.md))."
        )
    return "\n".join(lines) + "\n"


def _cost(found: dict[str, Any]) -> str:
    """What `benchmarks/bench_training.py` found."""
    lines = ["\n## What a training costs\n", "Median, least and greatest.\n"]
    if "fits" in found:
        lines += [
            _measured_by(found["fits"]["about"]),
            "`forecaster train` on the seven streams of ETTh1, pinned to one core, imports and reading too: cold on 16 "
            "months of 30 days, warm from that model on 24.\n",
            "| | CPU seconds | seconds | largest memory, MB |",
            "|---|---|---|---|",
            *(
                f"| {kind} | "
                + " | ".join(_range(numbers[name]) for name in ("cpu_seconds", "seconds", "peak_mb"))
                + " |"
                for kind, numbers in found["fits"].items()
                if kind != "about"
            ),
            "",
        ]
    if "worker" in found:
        worker = found["worker"]
        shown = {
            "throughput, of that without": "throughput_kept",
            "median turn, times that without": "turn_p50_times",
            "p99 of a turn, times that without": "turn_p99_times",
            "p99 from reading to commit, times that without": "wait_p99_times",
        }
        lines += [
            _measured_by(worker["about"]),
            f"The embedded daemon on one core answering {worker['streams']:,} streams as fast as it can, its training "
            f"child on another: stretches with a training against their neighbours without, {worker['pairs']} pairs.\n",
            "| while a training runs | |",
            "|---|---|",
            *(f"| {title} | {_range(worker[name])} |" for title, name in shown.items()),
            "",
        ]
    return "\n".join(lines)


def _measured_by(about: dict[str, Any]) -> str:
    machine = about["machine"]
    return (
        f"`{about['command']}` on {machine['cpu']}, {machine['cores']} cores, "
        f"load {machine['load_before']:.1f} before; commit {about['commit']}.\n"
    )


def _range(numbers: dict[str, float]) -> str:
    return f"{numbers['median']:.2f} ({numbers['min']:.2f} to {numbers['max']:.2f})"


def _cells(cells: dict[str, Any], case: str, technique: str) -> dict[str, dict[str, Any]]:
    """Measured cells of one row, by seed."""
    return {key.split("/")[2]: cell for key, cell in cells.items() if key.startswith(f"{case}/{technique}/")}


def _table(known: dict[str, dict[str, dict[str, Any]]]) -> str:
    naive = mean(cell["naive"] for cell in known["plain"].values())
    lines = [
        "| technique | settings | pinball | against the defaults | seeds | CPU seconds |",
        "|---|---|---|---|---|---|",
    ]
    lines.append(f"| the last value | | {naive:.4f} | | | |")
    for name, cells in known.items():
        shared = [seed for seed in cells if seed in known["plain"]]
        change = [100 * (cells[s]["pinball"] / known["plain"][s]["pinball"] - 1) for s in shared]
        against = "" if name == "plain" or not change else _spread(change, "+.2f") + " %"
        seconds = mean(cell["cpu_seconds"] for cell in cells.values())
        pinball = _spread([cell["pinball"] for cell in cells.values()], ".4f")
        shown, overrides = TECHNIQUES[name]
        settings = " ".join(f"`{_short(setting)}={value}`" for setting, value in overrides.items())
        lines.append(f"| {shown} | {settings} | {pinball} | {against} | {len(cells)} | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


def _short(setting: str) -> str:
    return setting.removeprefix("training.")


def _same(known: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Which techniques changed nothing, and why."""
    plain = known["plain"]
    lines = [
        f"* {TECHNIQUES[name][0]}: {_SAME[name]}.\n"
        for name, cells in known.items()
        if name in _SAME
        and all(abs(cell["pinball"] - plain[seed]["pinball"]) < _NOTHING for seed, cell in cells.items())
    ]
    return "\nThe same as the defaults on every seed, to within 1e-4:\n\n" + "".join(lines) if lines else ""


_WITH_CARE = """
**Read this table with care.** So few readings leave two modes: of {count} trainings {low} ended below {below:g}, {high}
above {above:g}, which is worse than the last value, and {between} between. The defaults came to {plain} on the three
seeds. A mean over three seeds says mostly how many of them fell into which mode, and its deviation that there are two.
What can be said: in the lower mode on every seed were {always_low}; in the upper one {always_high}. About all other
rows these seeds say nothing.
"""

_LOW, _HIGH = 0.93, 1.0
"""Between them hardly a training ends where there are two modes."""


def _modes(known: dict[str, dict[str, dict[str, Any]]]) -> str:
    """A warning where seeds alone throw a training from one mode into the other."""
    of_plain = [cell["pinball"] for cell in known["plain"].values()]
    if not (min(of_plain) < _LOW and max(of_plain) > _HIGH):
        return ""
    every = [cell["pinball"] for cells in known.values() for cell in cells.values()]
    low, high = sum(value < _LOW for value in every), sum(value > _HIGH for value in every)

    def all_of(is_there: Callable[[float], bool]) -> str:
        return "; ".join(
            TECHNIQUES[name][0] for name, cells in known.items() if all(is_there(c["pinball"]) for c in cells.values())
        )

    return _WITH_CARE.format(
        count=len(every),
        low=low,
        below=_LOW,
        high=high,
        above=_HIGH,
        between=len(every) - low - high,
        plain=", ".join(f"{value:.3f}" for value in of_plain),
        always_low=all_of(lambda value: value < _LOW),
        always_high=all_of(lambda value: value > _HIGH),
    )


def _side_by_side(known: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Teacher, student and plain model as the training itself reports them."""
    lines = []
    for name, cells in known.items():
        judged = [cell["judged"] for cell in cells.values() if "judged" in cell]
        if judged:
            numbers = [_spread([j[who] for j in judged], ".4f") for who in ("teacher", "student", "plain")]
            lines.append(f"| {TECHNIQUES[name][0]} | " + " | ".join(numbers) + " |")
    if not lines:
        return ""
    head = (
        "\nOn the stretch the training itself judges on:\n\n| | teacher | student | plain model |\n|---|---|---|---|\n"
    )
    return head + "\n".join(lines) + "\n"


def _spread(values: list[float], form: str) -> str:
    return f"{mean(values):{form}} ± {stdev(values):{form.lstrip('+')}}" if len(values) > 1 else f"{values[0]:{form}}"


if __name__ == "__main__":
    page = DOCS / "training.md"
    if "--check" in sys.argv:
        sys.exit(0 if page.read_text() == render() else "docs/training.md is older than its results")
    page.write_text(render())
