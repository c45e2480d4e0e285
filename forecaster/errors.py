"""Every exception the program raises on purpose.

ForecasterError                  ``hint`` says what to do next; ``retriable`` says whether trying again may help
├─ ConfigurationError            a setting is wrong: exit 2, before anything is opened
├─ RecordError                   one record is bad: it becomes a dead letter, the loop goes on
├─ TransportError                the outside did not do what was asked
│  ├─ TransportTimeout           no answer within the time allowed
│  ├─ DeliveryFailed             a record that was sent was not acknowledged
│  ├─ Fenced                     another instance has taken this one's place
│  ├─ Rebalancing                the group shares partitions out anew: only polls bring that to its end
│  └─ TransportUnavailable       nobody there
├─ TopicChanged                  a topic is not the one this process began with; ends it
├─ StateError
│  ├─ PageCorrupt                bytes of a state page are not what was written, or of another schema
│  ├─ StateGap                   state and committed offset do not belong together
│  ├─ IllegalTransition          a life-cycle step out of order
│  └─ UnknownSlot                a row that was never assigned
└─ ModelError
   ├─ ArtifactMismatch           an artifact is corrupt, foreign, or of another shape
   ├─ TrainingFailed             nothing to train on, or training diverged
   └─ NoChampion                 a model was asked for and there is none
"""

from __future__ import annotations


class ForecasterError(Exception):
    """Base of all our errors: what happened, and in ``hint`` what to do about it."""

    retriable = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigurationError(ForecasterError):
    """A setting has a value that cannot work."""


class RecordError(ForecasterError):
    """One record cannot be read; ``reason`` is the closed-set name that goes to header and metric.

    ``detail`` is for people: what was found, what was expected.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class TransportError(ForecasterError):
    """Something outside the process did not do what was asked."""


class TransportTimeout(TransportError):
    """No answer within the time allowed."""

    retriable = True


class DeliveryFailed(TransportError):
    """A record handed to the sink was not acknowledged."""

    retriable = True


class Fenced(TransportError):
    """Another instance with our name has taken over."""


class Rebalancing(TransportError):
    """The group shares its partitions out anew, and takes no commit until this member has polled."""

    retriable = True


class TransportUnavailable(TransportError):
    """Nobody answers at the address given."""

    retriable = True


class TopicChanged(ForecasterError):
    """A topic was made anew, widened or deleted under a running process; only an operator can say how to go on."""


class StateError(ForecasterError):
    """Per-stream state is not what it has to be."""


class PageCorrupt(StateError):
    """Bytes of a state page are damaged, or were written under another schema."""


class StateGap(StateError):
    """Restored state and the committed source offset do not belong together."""


class IllegalTransition(StateError):
    """A life-cycle step out of order."""


class UnknownSlot(StateError):
    """A row of the state was addressed that no stream owns."""


class ModelError(ForecasterError):
    """A model cannot be used or made."""


class ArtifactMismatch(ModelError):
    """An artifact is corrupt, foreign, or does not fit what was asked of it."""


class TrainingFailed(ModelError):
    """Training ended without a usable model."""


class NoChampion(ModelError):
    """A model was asked for and none has been promoted."""
