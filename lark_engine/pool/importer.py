"""Import of a pool: every row read, checked, put in order, labeled, and written as one table with a manifest."""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from lark_engine.config import PoolConfig
from lark_engine.errors import PoolError
from lark_engine.evaluation.extract import RULES_VERSION
from lark_engine.pool.checks import PlacedTrajectory, PoolChecks
from lark_engine.pool.labels import LABEL_COLUMNS, apply_labels, known_label, read_labels, verify
from lark_engine.pool.rejections import Rejection
from lark_engine.pool.sources import Source, read_source, resolve_source, source_identity
from lark_engine.pool.staging import TRAJECTORIES, Row, SortedRuns, as_row, write_pool
from lark_engine.store.atomic import disk_errors
from lark_engine.store.events import EventLog, Progress
from lark_engine.store.fingerprint import fingerprint
from lark_engine.store.rows import RowLog
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace, slug

REJECTED = "rejected.jsonl"
_REPORT_ROWS = 256


def plan_pool(config: PoolConfig, workspace: Workspace) -> Plan:
    """The pool that an import would make; reads the source's content once, for its hash.

    Errors: `PoolError` when the source is absent, empty, unreadable or of no known format.
    """
    return _plan(config, resolve_source(config), workspace)


def import_pool(config: PoolConfig, workspace: Workspace) -> Artifact:
    """Import the pool, or return the finished one of the same content and options.

    Errors: `PoolError` when a line is bad and `skip_bad` is off (all bad lines are then in `rejected.jsonl` of the
    partial folder), when nothing usable is left, or when the source breaks off or changes meanwhile;
    `StoreError` when the disk is full. After any of them, and after a kill, the same call starts over; labels that
    were found before are kept.
    """
    source = resolve_source(config)
    plan = _plan(config, source, workspace)
    return workspace.build(plan, partial(_import, config, source, plan, workspace.memo_dir))


def _plan(config: PoolConfig, source: Source, workspace: Workspace) -> Plan:
    identity = {"source": source_identity(source, workspace.memo_dir)}
    # From any folder the same source is found.
    path = Path(config.source).expanduser()
    origin = str(path.absolute()) if path.exists() else config.source
    # Where the source lies is no part of its content; split and revision are in the source's identity where they count.
    options = {k: v for k, v in config.identity().items() if k not in ("source", "split", "revision")}
    return Plan(
        kind="pools", name=slug(config.name) if config.name else source.name,
        fingerprint=fingerprint({"kind": "pools", "schema": 1, "rules": RULES_VERSION, "config": options, **identity}),
        config={**config.model_dump(mode="json"), "source": origin}, identity=identity,
    )  # fmt: skip


def _import(config: PoolConfig, source: Source, plan: Plan, memo_dir: Path, draft: Draft) -> None:
    resume = draft.path / "resume"
    events = EventLog(draft.path / "events.jsonl", "pool")
    checks, runs, tally = PoolChecks(), SortedRuns(resume / "runs"), _Tally()
    with _RejectedLog(draft.path / REJECTED) as rejected:
        for placed in _checked(source, checks, rejected, events):
            if not rejected.count or config.skip_bad:
                tally.add(placed)
                runs.add(as_row(placed))
    if source_identity(source, memo_dir) != plan.identity["source"]:
        shutil.rmtree(resume)
        raise PoolError(f"{source.label}: the source changed while it was being imported; run the same command again")
    _refuse_bad(config, source, rejected, tally)
    labels = resume / "labels.jsonl"
    _verify(config, runs, labels, events)
    with disk_errors(draft.path):
        rows = apply_labels(runs.merged(), read_labels(labels), config)
        write_pool(draft.path / TRAJECTORIES, tally.labels(rows))
    shutil.rmtree(resume)
    counts = checks.candidate_counts
    draft.counts = tally.counts(num_problems=len(counts))
    draft.drops = dict(rejected.reasons)
    draft.metrics = {
        "id_type": checks.id_type,
        "candidates_per_problem": {"min": min(counts), "median": statistics.median(counts), "max": max(counts)},
    }


def _checked(
    source: Source, checks: PoolChecks, rejected: _RejectedLog, events: EventLog
) -> Iterator[PlacedTrajectory]:
    """The sound rows; bad ones go to `rejected`. Progress in bytes of the source, or in rows where none are known."""
    unit = "B" if source.total else "rows"
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress(events, source.total, unit)) if source.total else None
        for number, (place, value, position) in enumerate(read_source(source), start=1):
            result = value if isinstance(value, Rejection) else checks.check(place, value)
            if number % _REPORT_ROWS == 0 and progress is not None:
                progress.update(position - progress.done, rows=number, bad=rejected.count)
            if isinstance(result, Rejection):
                rejected.add(result)
            else:
                yield result
        if progress is not None:
            progress.update(source.total - progress.done, bad=rejected.count)


def _refuse_bad(config: PoolConfig, source: Source, rejected: _RejectedLog, tally: _Tally) -> None:
    if rejected.first is not None and not config.skip_bad:
        lines = "1 line is bad" if rejected.count == 1 else f"{rejected.count} lines are bad"
        raise PoolError(
            f"{rejected.first}. In all {lines}, listed in {rejected.path}; mend the source, or run the same command "
            "with --skip-bad to leave them out"
        )
    if not tally.num_trajectories:
        why = f"; all its {rejected.count} lines are bad, listed in {rejected.path}" if rejected.count else ""
        raise PoolError(f"{source.label}: holds no trajectories{why}; check that this is the right file")


def _verify(config: PoolConfig, runs: SortedRuns, path: Path, events: EventLog) -> None:
    """Find the labels that need a comparison; those of an earlier, stopped run are known already."""
    needed = sum(known_label(config, r["answer"], r["is_correct"]) is None for r in runs.unsorted(LABEL_COLUMNS[3:]))
    if not needed:
        return
    with (
        RowLog(path, ("problem_id", "candidate_id")) as log,
        Progress(events, needed, "labels", done=len(log.known), resumes=True) as progress,
    ):
        verify(log, runs.unsorted(LABEL_COLUMNS), config, progress.update)


class _RejectedLog:
    """Writes every rejection to `rejected.jsonl`, counts them by reason, and remembers the first."""

    def __init__(self, path: Path):
        self.path = path
        self.first: Rejection | None = None
        self.reasons: Counter[str] = Counter()
        path.unlink(missing_ok=True)  # of an earlier, refused import

    @property
    def count(self) -> int:
        return self.reasons.total()

    def add(self, rejection: Rejection) -> None:
        if self.first is None:
            self.first = rejection
            self._file = self.path.open("w", encoding="utf-8", errors="replace")
        self.reasons[rejection.reason] += 1
        self._file.write(json.dumps(asdict(rejection), ensure_ascii=False) + "\n")

    def __enter__(self) -> _RejectedLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self.first is not None:
            self._file.close()


class _Tally:
    """Counts of what is kept."""

    def __init__(self) -> None:
        self.num_trajectories = self._num_labeled = self._num_correct = 0
        self._teachers: set[str] = set()

    def add(self, placed: PlacedTrajectory) -> None:
        self.num_trajectories += 1
        self._teachers.add(placed.trajectory.teacher)

    def labels(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The same rows, their labels counted as they pass."""
        for row in rows:
            self._num_labeled += row["is_correct"] is not None
            self._num_correct += row["is_correct"] is True
            yield row

    def counts(self, num_problems: int) -> dict[str, int]:
        return {
            "num_problems": num_problems,
            "num_trajectories": self.num_trajectories,
            "num_teachers": len(self._teachers),
            "num_correct": self._num_correct,
            "num_labeled": self._num_labeled,
        }
