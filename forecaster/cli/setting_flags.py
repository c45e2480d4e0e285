"""Flags that stand for any setting: ``--set training.outliers=hampel``, shared by commands over files."""

from __future__ import annotations

import argparse
import json
from typing import Any

from forecaster.errors import ConfigurationError


def add_setting_flags(parser: argparse.ArgumentParser) -> None:
    """Adds ``--set``, which may be repeated."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any setting, as training.outliers=hampel; may be repeated",
    )


def split_setting(text: str) -> tuple[str, str, Any]:
    """Section, name and value of ``section.name=value``; the value is JSON where it can be read as such, else text.

    Raises:
        ConfigurationError: it has another form.

    >>> split_setting("training.l1=1e-5"), split_setting("training.outliers=hampel")
    (('training', 'l1', 1e-05), ('training', 'outliers', 'hampel'))
    """
    name, equals, value = text.partition("=")
    section, dot, field = name.partition(".")
    if not (equals and dot and section and field):
        raise ConfigurationError(
            f"--set {text!r} names no setting.", hint="Write section.name=value, as training.outliers=hampel."
        )
    try:
        return section, field, json.loads(value)
    except json.JSONDecodeError:
        return section, field, value


def merge_settings(overrides: dict[str, dict[str, Any]], texts: list[str]) -> dict[str, dict[str, Any]]:
    """What ``--set`` says, over flags of their own names; ``overrides`` is changed and given back."""
    for text in texts:
        section, name, value = split_setting(text)
        overrides.setdefault(section, {})[name] = value
    return overrides
