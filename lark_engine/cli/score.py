"""`lark score`, and `lark score tokens`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lark_engine.cli.common import (
    CACHE,
    OutputFile,
    WorkspaceOption,
    command_group,
    done,
    open_pool,
    required,
    runs_subcommand,
    stage,
)
from lark_engine.config import Device, ScoreConfig
from lark_engine.errors import ConfigError
from lark_engine.options import with_options
from lark_engine.store.workspace import Artifact, Workspace

app = command_group()


@app.callback()
@stage("score")
@with_options(ScoreConfig, leave_out=("student",))
def score_command(
    ctx: typer.Context,
    values: dict[str, Any],
    input: Annotated[
        str | None, typer.Option("--input", "--pool", help="pool: id, or a file to import first (required)")
    ] = None,
    student: Annotated[
        list[str] | None,
        typer.Option("--student", "--student-model", "--model-path", help="student, or several one by one (required)"),
    ] = None,
    output: OutputFile = None,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Score every candidate of a pool under the student: nll, Brier, rho, g_hat, RSR, entropy."""
    if runs_subcommand(ctx):
        return
    input, students = required(ctx, "input", input), required(ctx, "student", student or None)
    from lark_engine.scoring.score import score
    from lark_engine.scoring.table import released_scores
    from lark_engine.store.atomic import write_json

    if output and len(students) > 1:
        raise ConfigError("--output takes the scores of one student; leave it out, or give one --student")
    store = Workspace(workspace)
    configs = [ScoreConfig.parse({"student": name, **values}, "lark score") for name in students]
    pool = open_pool(input, store)
    for config in configs:
        scores = score(config, store, pool)
        if output:
            write_json(output, released_scores(scores))
            typer.echo(f"wrote {output}")
        done(scores)


@app.command("tokens")
@stage("score tokens")
def tokens_command(
    scores: Annotated[str, typer.Option("--scores", help="scores by id or name")],
    candidate: Annotated[list[str] | None, typer.Option(help="one candidate, PROBLEM:CANDIDATE")] = None,
    problem: Annotated[list[str] | None, typer.Option(help="all candidates of a problem")] = None,
    selection: Annotated[str | None, typer.Option(help="all candidates that a selection of these scores keeps")] = None,
    everything: Annotated[bool, typer.Option("--all", help="all candidates")] = False,
    alternatives: Annotated[int, typer.Option(help="most probable tokens to keep for each token", min=0, max=50)] = 5,
    device: Annotated[Device, typer.Option(help="where to run; auto = CUDA when this machine has it")] = "auto",
    batch_tokens: Annotated[int | None, typer.Option(help="most tokens in one forward pass", min=1)] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="run Python code that comes with the student")] = False,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Compute the statistics of every response token of given candidates, with the student's alternatives."""
    from lark_engine.models import resolve_device
    from lark_engine.scoring.token_view import score_tokens

    store = Workspace(workspace)
    artifact = store.resolve("scores", scores)
    rows = _rows(artifact, candidate or [], problem or [], selection, everything, store)
    made = score_tokens(
        artifact, store, rows, alternatives=alternatives, device=resolve_device(device), batch_tokens=batch_tokens,
        trust_remote_code=trust_remote_code,
    )  # fmt: skip
    typer.echo(f"{artifact.id}: tokens of {made:,} candidates computed, {len(rows) - made:,} were there already")
    typer.echo(f"  {artifact.path / 'token_stats'}")


def _rows(
    scores: Artifact, candidates: list[str], problems: list[str], selection: str | None, everything: bool,
    store: Workspace,
) -> list[int]:  # fmt: skip
    """Rows of the score table that a user means. Errors: `ConfigError` for a candidate that was not scored."""
    from lark_engine.scoring.table import read_scores
    from lark_engine.selection.select import read_selection

    table = read_scores(scores)
    if everything:
        return list(range(len(table)))
    known = {(str(p), str(c)): row for row, (p, c) in enumerate(zip(table.problem_id, table.candidate_id, strict=True))}
    wanted: list[tuple[str, str]] = []
    for name in candidates:
        problem_id, colon, candidate_id = name.rpartition(":")
        if not colon:
            raise ConfigError(f"--candidate '{name}': write it as PROBLEM:CANDIDATE")
        wanted.append((problem_id, candidate_id))
    for name in problems:
        of_problem = [key for key in known if key[0] == name]
        if not of_problem:
            raise ConfigError(f"{scores.id} holds no problem {name}")
        wanted += of_problem
    if selection:
        kept = read_selection(store.resolve("selections", selection))
        wanted += [(str(p), str(c)) for p, c in zip(kept.problem_id, kept.candidate_id, strict=True)]
    if not wanted:
        raise ConfigError("which candidates? give --candidate PROBLEM:CANDIDATE, --problem ID, --selection ID or --all")
    for problem_id, candidate_id in wanted:
        if (problem_id, candidate_id) not in known:
            raise ConfigError(f"{scores.id} holds no candidate {candidate_id} of problem {problem_id}")
    return sorted({known[key] for key in wanted})
