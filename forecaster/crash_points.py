"""Named places at which a test lets the process die by SIGKILL, to show that nothing is lost there.

``CRASH_AT=after_flush:3`` kills the process the third time it reaches ``after_flush``; without the variable, reaching a
place costs one comparison. ``after_flush:3:stop`` stops it there (SIGSTOP) until it is told to go on. Operators leave
it alone. The places:

after_poll     readings were taken, nothing is answered
mid_send       some answers of a transaction were handed over
after_flush    all answers and pages are acknowledged, offsets are not in the transaction
after_offsets  offsets are in the transaction, it is not ended
after_commit   the transaction is ended, the process does not know
in_restore     pages are being read
in_replay      readings are being taken in a second time
at_switch      a network has just taken over

and of a training:

mid_upload       all records of a write to the models topic are acknowledged, the transaction is not ended
before_decision  a model is in the registry, what was decided about it is not
"""

from __future__ import annotations

import os
import signal
from collections import Counter

PLACES = (
    "after_poll",
    "mid_send",
    "after_flush",
    "after_offsets",
    "after_commit",
    "in_restore",
    "in_replay",
    "at_switch",
)

_PLACE, _COUNT, _HOW = [*os.environ.get("CRASH_AT", "").split(":"), "", ""][:3]
_reached: Counter[str] = Counter()


def reach(place: str) -> None:
    """The process is at this place; where it was told to, it dies or stops here."""
    if place != _PLACE:
        return
    _reached[place] += 1
    if _reached[place] == int(_COUNT or "1"):
        os.kill(os.getpid(), signal.SIGSTOP if _HOW == "stop" else signal.SIGKILL)
