"""Takes the guards of exactly-once delivery out, one at a time, in a copy of the checkout: the tests have to be red.

``python tests/fault/mutations.py [NAME…]`` runs all of them, or those named. It takes some minutes. What was seen of
each goes to benchmarks/results/mutations.json, which docs/reliability.md is made from.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "mutations.json"
TRAPS = "tests/fault/test_traps.py"


@dataclass(frozen=True)
class Mutation:
    """One edit, and the tests that are to notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "future check",
        "forecaster/transports/kafka_sink.py",
        "                failure = future.exception\n",
        "                failure = None\n",
        (f"{TRAPS}::test_a_record_given_up_by_the_client_is_not_left_out_of_a_commit",),
    ),
    Mutation(
        "futures given up in time",
        "forecaster/transports/kafka_transaction.py",
        "        self.flush(flush_timeout_seconds)\n",
        "",
        (f"{TRAPS}::test_a_record_given_up_by_the_client_is_not_left_out_of_a_commit",),
    ),
    Mutation(
        "generation guard",
        "forecaster/transports/kafka_source.py",
        "if metadata.generation_id < 0 or not metadata.member_id or not set(partitions) <= owned:",
        "if False:",
        (f"{TRAPS}::test_an_evicted_member_commits_nothing",),
    ),
    Mutation(
        "producer discard",
        "forecaster/transports/kafka_transaction.py",
        "        self._discard_producer()\n"
        "        self._forget()\n"
        "        self._epoch = None\n"
        "        self._producer = self._open()\n",
        "        self._current().abort_transaction()\n        self._epoch = None\n",
        (f"{TRAPS}::test_offsets_of_a_lost_transaction_do_not_come_back_with_the_next_one",),
    ),
    Mutation(
        "every loss told",
        "forecaster/transports/kafka_client.py",
        "        coordinator.rejoining = False\n",
        "",
        (f"{TRAPS}::test_a_member_dropped_while_it_asks_to_join_again_is_told_that_its_partitions_are_lost",),
    ),
    Mutation(
        "every join finished",
        "forecaster/transports/kafka_source.py",
        "        finish_every_join(self._consumer)\n",
        "",
        (f"{TRAPS}::test_a_join_answered_between_two_polls_is_finished_by_the_next",),
    ),
    Mutation(
        "nothing parked",
        "forecaster/transports/kafka_source.py",
        "        forget_parked(self._consumer, tp)\n",
        "",
        (
            "tests/broker/test_source.py::test_a_partition_held_in_the_middle_of_what_was_fetched_comes_when_it_is_released",
        ),
    ),
    Mutation(
        "restore target",
        "forecaster/transports/kafka_state.py",
        'with self._consumer(isolation_level="read_uncommitted") as consumer:\n            end =',
        "with self._consumer() as consumer:\n            end =",
        (f"{TRAPS}::test_state_behind_a_transaction_that_a_dead_worker_left_open_is_read",),
    ),
    Mutation(
        "outputs before offsets",
        "forecaster/engine/checkpoint.py",
        "        # Step 1.\n        self.add(())\n",
        "        self._source.commit(offsets)\n        self.add(())\n",
        ("tests/unit/engine/test_checkpoint.py",),
    ),
    Mutation(
        "outputs before offsets, in a transaction",
        "forecaster/transports/kafka_transaction.py",
        "        self.flush(flush_timeout_seconds)\n",
        "        self._source.commit(offsets)\n        self.flush(flush_timeout_seconds)\n",
        (f"{TRAPS}::test_where_one_place_takes_nothing_nothing_of_the_transaction_is_committed",),
    ),
    Mutation(
        "state before its offsets, in a transaction",
        "forecaster/engine/checkpoint.py",
        "        # Step 1.\n        self._sink.send_all(\n",
        "        self._sink.commit(offsets, flush_timeout_seconds=self._flush_timeout)\n        self._sink.send_all(\n",
        ("tests/unit/engine/test_checkpoint.py",),
    ),
    Mutation(
        "watchdog of a commit",
        "forecaster/transports/kafka_transaction.py",
        "        watchdog.start()\n",
        "",
        ("tests/unit/transports/test_kafka_transaction.py",),
    ),
    Mutation(
        "bounded in flight",
        "forecaster/transports/kafka_sink.py",
        "        while self._in_flight and self._under_way + count > self._max_in_flight and not self._failed:\n",
        "        while False:\n",
        ("tests/broker/test_sink.py::test_send_waits_at_the_bound_until_the_records_under_way_are_given_up",),
    ),
    Mutation(
        "no deserializers",
        "forecaster/transports/kafka_standby.py",
        '            isolation_level="read_committed",\n',
        '            isolation_level="read_committed",\n            value_deserializer=bytes.decode,\n',
        ("tests/unit/transports/test_kafka_client.py::test_no_consumer_decodes_within_the_client",),
    ),
    Mutation(
        "no commit of what a lost partition answered",
        "forecaster/engine/worker.py",
        "        if self._must_start_over or self._is_torn:\n",
        "        if self._is_torn:\n",
        ("tests/unit/engine/test_worker_lost.py",),
    ),
    Mutation(
        "no commit of what an interrupt left half done",
        "forecaster/engine/worker.py",
        "        if self._must_start_over or self._is_torn:\n",
        "        if self._must_start_over:\n",
        ("tests/unit/engine/test_worker.py",),
    ),
    Mutation(
        "pages missing",
        "forecaster/engine/keeper.py",
        "        if meta.pages is not None and meta.pages != self._roll.total():\n",
        "        if False:\n",
        ("tests/unit/engine/test_keeper.py",),
    ),
    Mutation(
        "what a dead owner left open is ended first",
        "forecaster/engine/restore.py",
        "        self._store.take_over(self.partition)\n",
        "",
        ("tests/unit/engine/test_recovery.py",),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when everything is green untouched and red under every mutation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(m.name for m in MUTATIONS)}")
    names = parser.parse_args(arguments).names
    if unknown := set(names) - {mutation.name for mutation in MUTATIONS}:
        parser.error(f"no such mutation: {', '.join(sorted(unknown))}")
    chosen = [mutation for mutation in MUTATIONS if not names or mutation.name in names]
    with tempfile.TemporaryDirectory(prefix="mutations-") as directory:
        copy = copy_checkout(Path(directory))
        if not is_green(copy, {test for mutation in chosen for test in mutation.tests}):
            print("red before anything was changed: mend that first")
            return 1
        survivors = []
        for mutation in chosen:
            began = time.monotonic()
            if not (noticed := is_noticed(copy, mutation)):
                survivors.append(mutation.name)
            record(mutation, is_noticed=noticed, seconds=time.monotonic() - began)
    if survivors:
        print(f"not noticed: {', '.join(survivors)}")
    return int(bool(survivors))


def record(mutation: Mutation, *, is_noticed: bool, seconds: float) -> None:
    """Put what was seen of a mutation in its place in the results; those that are none any more go."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    head = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    )
    found[mutation.name] = {
        "file": mutation.file,
        "tests": list(mutation.tests),
        "is_noticed": is_noticed,
        "seconds": round(seconds, 1),
        "commit": head.stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
    }
    kept = {known.name: found[known.name] for known in MUTATIONS if known.name in found}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


def copy_checkout(directory: Path) -> Path:
    """What the tests need, in a place where it may be broken."""
    for name in ("forecaster", "tests", "docs"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", directory)
    if (ROOT / ".kafka").is_dir():
        (directory / ".kafka").symlink_to(ROOT / ".kafka")
    return directory


def is_noticed(copy: Path, mutation: Mutation) -> bool:
    """Make the edit, see the tests red, take the edit back."""
    path = copy / mutation.file
    whole = path.read_text(encoding="utf-8")
    if whole.count(mutation.old) != 1:
        print(f"{mutation.name}: {mutation.file} holds what is to be changed {whole.count(mutation.old)} times")
        return False
    path.write_text(whole.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        green = is_green(copy, mutation.tests)
    finally:
        path.write_text(whole, encoding="utf-8")
    print(f"{mutation.name}: {'green, though a guard is gone' if green else 'red, as it should be'}", flush=True)
    return not green


def is_green(copy: Path, tests: Iterable[str]) -> bool:
    """Run these tests.

    Raises:
        RuntimeError: they could not be run, or were skipped, which says nothing.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", *sorted(tests)]
    path = os.pathsep.join(filter(None, (str(copy), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=600, check=False)
    failed = re.search(r"^\d+ failed", done.stdout, re.MULTILINE)
    passed = re.search(r"^\d+ passed(?!.* skipped)", done.stdout, re.MULTILINE)
    if bool(failed) == bool(passed):
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-1000:]}")
    return failed is None


if __name__ == "__main__":
    sys.exit(main())
