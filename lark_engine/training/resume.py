"""Whether a run would be resumed, and from where: by its folder alone, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from lark_engine.errors import StoreError
from lark_engine.store.lock import is_held_lock
from lark_engine.store.workspace import read_artifact
from lark_engine.training.checkpoints import newest_complete_checkpoint, require_own_files, step_of
from lark_engine.training.spec import RESUME_DIR, SPEC


class Resume(NamedTuple):
    """From which optimizer step a run would go on (0: from the beginning, None: it would not run), in a sentence.

    `is_refused`: what is saved cannot be gone on with as the run is to be started now.
    """

    step: int | None
    sentence: str
    is_refused: bool = False


def resume_of(folder: Path, *, num_processes: int, is_deepspeed: bool, save_steps: int) -> Resume:
    """What running the command of a run would do with what lies in its folder."""
    if read_artifact(folder) is not None:
        return Resume(None, "this very run is finished; running it again trains nothing and finds its checkpoint")
    if is_held_lock(folder / ".lock"):
        return Resume(None, "this very run is being trained now; another one waits for it and then finds its result")
    resume_dir = folder / RESUME_DIR
    newest = newest_complete_checkpoint(resume_dir)
    every = f"it can be resumed from every {save_steps:,}th step on" if save_steps > 1 else "every step is saved"
    if newest is None:
        begun = "an earlier start of it saved nothing" if resume_dir.exists() else "it was never started"
        return Resume(0, f"begins with step 1: {begun}; {every}")
    if is_deepspeed:
        before = processes_of(resume_dir)
        if before is not None and before != num_processes:
            return Resume(
                None,
                f"begun with {before} processes, and DeepSpeed resumes it only with as many; choose {before}, or "
                f"remove {resume_dir} to begin anew",
                is_refused=True,
            )
        try:
            require_own_files(newest)
        except StoreError as error:
            return Resume(None, str(error), is_refused=True)
    return Resume(step_of(newest), f"goes on after step {step_of(newest):,}, which is saved")


def processes_of(resume_dir: Path) -> int | None:
    """How many processes saved the state of a run; None where nothing says it."""
    try:
        config = json.loads((resume_dir / SPEC).read_text(encoding="utf-8"))["config"]
        return int(config["nproc_per_node"]) * int(config["nnodes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
