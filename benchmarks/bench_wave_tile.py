"""From how many rows and outputs on the rows of a wave get the same bits, and what filling a wave up costs (decisions
0001 and 0016).

Prints, per cell and width, the wave sizes from 1 to 48 at which a step gives some row other bits than a wave of 512
does, and the time of one step at 1, 16 and 512 rows; and the numbers of outputs with which a matrix product gives a row
other bits at some place of a wave than at another.
"""

from __future__ import annotations

import time
from itertools import product

import torch
import torch.nn.functional as F

from forecaster.models.cells import RecurrentStack, build_stack

FEATURES = 11


def differing_sizes(stack: RecurrentStack, *, seeds: int = 5, largest: int = 48) -> list[int]:
    """Wave sizes whose rows are not those of a wave of 512."""
    found = set()
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(512, FEATURES, generator=generator)
        hidden = 0.3 * torch.randn(512, *stack.hidden_shape, generator=generator)
        _, whole = stack.step(x, hidden)
        for rows in range(1, largest + 1):
            _, part = stack.step(x[:rows], hidden[:rows])
            if not torch.equal(part, whole[:rows]):
                found.add(rows)
    return sorted(found)


def differing_outputs(*, seeds: int = 2) -> list[int]:
    """Numbers of outputs at which one row, at every place of waves of 16 to 1,024 rows, has not the same bits."""
    found = set()
    for outputs in (*range(1, 33), 36, 44, 64, 90, 92, 96, 144):
        for inputs, seed in product((7, 11, 23, 64, 76, 145), range(seeds)):
            generator = torch.Generator().manual_seed(seed)
            weight = torch.randn(outputs, inputs, generator=generator)
            bias, row = torch.randn(outputs, generator=generator), torch.randn(inputs, generator=generator)
            made = [F.linear(row.repeat(rows, 1), weight, bias) for rows in (16, 48, 256, 1_024)]
            if not all(torch.equal(part, made[0][:1].expand_as(part)) for part in made):
                found.add(outputs)
    return sorted(found)


def step_microseconds(stack: RecurrentStack, rows: int, *, steps: int = 1_000) -> float:
    """Mean time of one step, after warming up."""
    x, hidden = torch.randn(rows, FEATURES), torch.randn(rows, *stack.hidden_shape)
    for _ in range(steps // 10):
        stack.step(x, hidden)
    began = time.perf_counter()
    for _ in range(steps):
        stack.step(x, hidden)
    return (time.perf_counter() - began) / steps * 1e6


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(
        f"torch {torch.__version__}, one thread; a row has other bits at some places with {differing_outputs()} outputs"
    )
    with torch.inference_mode():
        for cell in ("rnn", "gru", "lstm"):
            for width in (16, 64, 128):
                made = build_stack(cell, FEATURES, width, 1)
                times = ", ".join(f"{rows} rows {step_microseconds(made, rows):.0f} µs" for rows in (1, 16, 512))
                print(f"{cell} {width}: other bits at {differing_sizes(made)}; {times}")
