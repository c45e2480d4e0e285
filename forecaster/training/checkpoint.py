"""Everything a fit needs to go on as if it had never stopped, as one file without pickle.

The file is safetensors. Tensors: ``network.*``, ``averaged.*`` and ``best.*`` weights, ``optimiser.<parameter>.*``,
``random.torch`` (and ``random.cuda``). Metadata: ``state``, a JSON object of the counters, the state of the numpy
generator, and the identity of the fit.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from forecaster.errors import TrainingFailed
from forecaster.models.artifact import write_atomically
from forecaster.models.network import RecurrentForecaster


@dataclass(slots=True)
class Counters:
    """How far a fit has come, and how well."""

    step: int = 0
    best_step: int = 0
    looks_without_gain: int = 0
    start: float = math.nan
    """Validation before the first step."""
    last: float = math.nan
    """Validation at the latest look."""
    best: float = math.nan
    seconds: float = 0.0
    stopped_by: str = ""
    """Empty while it runs."""


@dataclass(slots=True)
class FitState:
    """A fit between two of its steps."""

    network: RecurrentForecaster
    averaged: RecurrentForecaster
    optimiser: torch.optim.Optimizer
    rng: np.random.Generator
    best_weights: dict[str, Tensor]
    counters: Counters = field(default_factory=Counters)

    def save(self, path: Path, identity: str) -> None:
        """Write the whole state; a crash leaves the old file or the new one.

        Args:
            path: of the file.
            identity: names plan, seed and data, so that no other fit goes on from it.

        Raises:
            TrainingFailed: the disk refuses.
        """
        tensors = {f"best.{name}": value for name, value in self.best_weights.items()}
        for owner, module in (("network", self.network), ("averaged", self.averaged)):
            tensors |= {f"{owner}.{name}": value for name, value in module.state_dict().items()}
        for parameter, entries in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{parameter}.{name}": value for name, value in entries.items() if value is not None}
        tensors["random.torch"] = torch.get_rng_state()
        device = next(self.network.parameters()).device
        if device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(device)
        state = {"identity": identity, "counters": asdict(self.counters), "numpy": self.rng.bit_generator.state}
        content = safetensors.torch.save(
            {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
            metadata={"state": json.dumps(state)},
        )
        try:
            write_atomically(path, content)
        except OSError as error:
            raise TrainingFailed(
                f"Training checkpoint {path} cannot be written: {error.strerror}.",
                hint="Check the disk, or train without.",
            ) from error

    def restore(self, path: Path, identity: str) -> bool:
        """Take over what `save` wrote, the global torch generator included; ``False`` where there is no such file.

        Raises:
            TrainingFailed: it cannot be read, or belongs to a fit with other settings or data.
        """
        if not path.exists():
            return False
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                state = json.loads((file.metadata() or {})["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            found = state["identity"]
            if found != identity:
                raise TrainingFailed(
                    f"Training checkpoint {path} belongs to training {found[:12]}, this one is {identity[:12]}.",
                    hint="Resuming needs the same data, seed and settings; else delete it or name another directory.",
                )
            self.network.load_state_dict(_part(tensors, "network."))
            self.averaged.load_state_dict(_part(tensors, "averaged."))
            entries: dict[int, dict[str, Tensor]] = {}
            for name, value in _part(tensors, "optimiser.").items():
                parameter, entry = name.split(".", 1)
                entries.setdefault(int(parameter), {})[entry] = value
            groups = self.optimiser.state_dict()["param_groups"]
            self.optimiser.load_state_dict({"state": entries, "param_groups": groups})
            self.best_weights = _part(tensors, "best.")
            self.rng.bit_generator.state = state["numpy"]
            self.counters = Counters(**state["counters"])
            torch.set_rng_state(tensors["random.torch"])
            if "random.cuda" in tensors:
                torch.cuda.set_rng_state(tensors["random.cuda"], next(self.network.parameters()).device)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise TrainingFailed(
                f"Training checkpoint {path} cannot be read: {error}", hint="Delete it; training begins anew."
            ) from error
        return True


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
