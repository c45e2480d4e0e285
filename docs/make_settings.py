"""Writes docs/settings.md from forecaster/settings.py: ``python docs/make_settings.py`` (or ``make docs``)."""

from __future__ import annotations

import inspect
import json
import typing
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel, BeforeValidator, SecretStr
from pydantic.fields import FieldInfo

from forecaster.settings import GroupSettings, Settings, parse_duration

PAGE = Path(__file__).parent / "settings.md"

HEAD = """\
# Settings

Written by `python docs/make_settings.py` (`make docs`) from `forecaster/settings.py`; change it there.

Where a value comes from, first match wins:

1. a flag of the command, where it has one: `--port 9000`
2. the environment: `FORECASTER_TELEMETRY__PORT=9000` (two underscores between section and field)
3. the secrets directory (`--secrets-dir`, or `FORECASTER_SECRETS_DIR`): one file a setting, named as the environment
   variable is, holding the value
4. the TOML file (`--config`, or `FORECASTER_CONFIG`): `port = 9000` under `[telemetry]`
5. the default below. `forecaster demo` has some of its own, as its last section here says.

Durations are a number of seconds, or have a unit: `250ms`, `90s`, `15m`, `1h`, `14d`, `1w`. Lists are JSON in the
environment, `FORECASTER_READINGS__FIELDS='["temperature", "vibration"]'`, and arrays in TOML. A name that is no setting
and a value out of bounds end the program with exit code 2, before anything is opened; every mistake is named at once.

```toml
# forecaster.toml
[kafka]
bootstrap_servers = "kafka-1:9092,kafka-2:9092"

[forecast]
horizon = 24
seasons = ["1d"]
```
"""

TAIL = """
## What `forecaster demo` does differently

It sets its own defaults below all of the above, so that something can be seen within a minute: `training.every` 20m,
`training.min_wall_seconds` 10, `training.min_readings` 40,000 for the simulated streams, `engine.boundary_records` 64,
a `registry.directory` that is deleted at the end, `telemetry.log_level` WARNING and `telemetry.log_format` text. It
reads no setting of `kafka` but `delivery_timeout_seconds` and `max_poll_interval_seconds`, and `topics` are only names.
"""

_UNITS = ((604_800.0, "w"), (86_400.0, "d"), (3_600.0, "h"), (60.0, "m"), (1.0, "s"))


def page() -> str:
    """The whole page."""
    sections = [
        ("", {"delivery": Settings.model_fields["delivery"]}, "What is promised about every answer."),
    ]
    for name, info in Settings.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            sections.append((name, info.annotation.model_fields, info.annotation.__doc__ or ""))
        elif name == "groups":
            sections.append(("groups", {"": info}, inspect.getdoc(GroupSettings) or ""))
    return HEAD + "".join(_section(*section) for section in sections) + TAIL


def _section(name: str, fields: dict[str, FieldInfo], purpose: str) -> str:
    lines = [
        f"\n## {name or 'delivery'}\n",
        f"{purpose}\n",
        "| environment variable | default | expected | meaning |",
        "|---|---|---|---|",
    ]
    for field, info in fields.items():
        variable = "__".join(
            f"FORECASTER_{part}" if not k else part for k, part in enumerate(filter(None, (name, field)))
        )
        variable = variable.upper()
        cells = (f"`{variable}`", _default(info), _expected(info), info.description or "")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if name == "groups":
        lines += ["", "| of a group | default | expected | meaning |", "|---|---|---|---|"]
        for field, info in GroupSettings.model_fields.items():
            default = (
                "has to be given" if info.is_required() else "that of all" if info.default is None else _default(info)
            )
            lines.append(f"| `{field}` | {default} | {_expected(info)} | {info.description} |")
    return "\n".join(lines) + "\n"


def _default(info: FieldInfo) -> str:
    if info.default_factory is not None:
        return "from the host name"  # not evaluated: this page is the same wherever it is made
    value = info.default
    if isinstance(value, SecretStr) or value in ("", (), {}):
        return "none"
    if value is None:
        return "of the preset"
    return f"`{_duration(value) if _is_duration(info) else _plain(value)}`"


def _expected(info: FieldInfo) -> str:
    if typing.get_origin(info.annotation) is typing.Literal:
        options = typing.get_args(info.annotation)
        return ", ".join(f"`{option}`" if option else "empty" for option in options)
    kind = _kind(info)
    bounds = [text for item in info.metadata if (text := _bound(item, info))]
    return ", ".join([kind, *bounds])


def _kind(info: FieldInfo) -> str:
    if _is_duration(info):
        return "duration"
    if typing.get_origin(info.annotation) is tuple:
        inner = typing.get_args(info.annotation)[0]
        return {str: "list of texts", GroupSettings: "list of groups", float: "list of numbers"}.get(
            inner, "list of numbers or durations"
        )
    annotation = info.annotation
    if type(None) in typing.get_args(annotation):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
        if typing.get_origin(annotation) is typing.Annotated:
            annotation, *validators = typing.get_args(annotation)
            if any(isinstance(item, BeforeValidator) and item.func is parse_duration for item in validators):
                return "duration"
    names: dict[Any, str] = {
        int: "whole number",
        float: "number",
        str: "text",
        bool: "`true` or `false`",
        SecretStr: "secret text",
        Path: "path",
        int | str: "whole number or duration",
        dict[str, Any]: "settings of `training`",
    }
    return names[annotation]


def _bound(item: object, info: FieldInfo) -> str:
    show = _duration if _is_duration(info) else _plain
    if isinstance(item, Ge | Gt):
        limit: Any = item.ge if isinstance(item, Ge) else item.gt
        return f"{'from' if isinstance(item, Ge) else 'above'} {show(limit)}"
    if isinstance(item, Le | Lt):
        limit = item.le if isinstance(item, Le) else item.lt
        return f"{'to' if isinstance(item, Le) else 'below'} {show(limit)}"
    if isinstance(item, MinLen):
        return "not empty" if item.min_length == 1 else f"at least {item.min_length} long"
    if isinstance(item, MaxLen):
        return f"at most {item.max_length}"
    return ""


def _is_duration(info: FieldInfo) -> bool:
    return any(isinstance(item, BeforeValidator) and item.func is parse_duration for item in info.metadata)


def _duration(seconds: float) -> str:
    """In the largest unit that leaves a whole number."""
    for size, unit in _UNITS:
        if seconds and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def _plain(value: Any) -> str:
    if isinstance(value, tuple | bool):
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
