"""SIGHUP: settings are read again, and those that are safe to change under a running process take effect."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from pydantic import BaseModel

from forecaster.errors import ConfigurationError
from forecaster.settings import Settings

log = logging.getLogger(__name__)

SAFE = ("telemetry.log_level", "telemetry.log_format", "telemetry.watch", "telemetry.watch_streams")
"""Settings that take effect at once; every other takes a restart, and is named in a warning where it has changed."""


class Reloader:
    """Reads the settings again when called, from whatever they were read from before.

    Args:
        settings: those the process began with; differences are told against them.
        load: reads them anew; may raise `ConfigurationError`, and then nothing changes.
        apply: makes the `SAFE` ones take effect.
    """

    def __init__(self, settings: Settings, *, load: Callable[[], Settings], apply: Callable[[Settings], None]) -> None:
        self._settings = settings
        self._load = load
        self._apply = apply
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            try:
                found = self._load()
            except ConfigurationError as error:
                log.error("settings not read again", extra={"error": str(error), "hint": error.hint})
                return
            changed = list(_differences(self._settings, found))
            self._apply(found)
            at_once = [name for name in changed if name in SAFE]
            later = [name for name in changed if name not in SAFE]
            log.warning("settings read again", extra={"changed": at_once})
            if later:
                log.warning("changed settings take a restart", extra={"settings": later})


def reload_on_hangup(reload: Callable[[], None]) -> None:
    """Call ``reload`` at every SIGHUP, on a thread of its own: a handler may interrupt the writing of a log line."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        threading.Thread(target=reload, name="reload", daemon=True).start()

    signal.signal(signal.SIGHUP, on_signal)


def _differences(before: BaseModel, after: BaseModel, prefix: str = "") -> Iterator[str]:
    """Dotted names of the settings that differ."""
    for name in type(before).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, BaseModel):
            yield from _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"{prefix}{name}"
