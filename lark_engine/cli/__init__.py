"""`lark`: every stage as a command, the whole run, the demo and the dashboard. The only package that prints.

One module for each group of commands:

- pool: pool import, pool show, pool flag
- score: score
- select: select
- sweep: sweep
- train: train full, train lora, train merge
- benchmarks: benchmarks list, benchmarks fetch, benchmarks check
- evaluate: generate, extract, grade, dispute
- results: table, compare, lineage
- run: run, demo
- serve: serve
- report: report
- bundle: bundle
- views: views save, list, rename, remove
- access: access add, rotate, remove, list, log
- jobs: jobs submit, list, show, logs, stop, resume, clone, remove
- clean: clean
- doctor: doctor

`common` holds what they share. Heavy libraries are imported inside the commands, so that `lark --help` is quick. Flags
may be written with dashes or underscores, so that the released code's command lines work.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Annotated

import typer

from lark_engine import __version__
from lark_engine.cli import (
    access,
    benchmarks,
    bundle,
    clean,
    doctor,
    evaluate,
    jobs,
    pool,
    report,
    results,
    run,
    score,
    select,
    serve,
    sweep,
    train,
    views,
)
from lark_engine.cli.common import Guarded

app = typer.Typer(
    cls=Guarded, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    context_settings={"token_normalize_func": lambda token: token.replace("_", "-")},
    help="Score candidate trajectories by how learnable they are, select, train, evaluate.",
)  # fmt: skip
app.add_typer(pool.app, name="pool")
app.add_typer(score.app, name="score")
app.add_typer(select.app, name="select")
app.add_typer(train.app, name="train")
app.add_typer(benchmarks.app, name="benchmarks")
# Without a name, so that their commands stand beside the groups: `lark generate`, `lark run`.
app.add_typer(sweep.app)
app.add_typer(evaluate.app)
app.add_typer(results.app)
app.add_typer(run.app)
app.add_typer(serve.app)
app.add_typer(report.app)
app.add_typer(bundle.app)
app.add_typer(views.app, name="views")
app.add_typer(access.app, name="access")
app.add_typer(jobs.app, name="jobs")
app.add_typer(clean.app)
app.add_typer(doctor.app)


def main() -> None:
    """Entry point of the console script."""
    # The end that a supervisor or a batch system asks for is as orderly as that of Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What lies in the folder that we were started in is nothing that our child processes should import.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    # Libraries' own bars and advice would bury ours; both are read when they are first imported.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("lark_engine").setLevel(logging.INFO)
    # A server's own lines are for the log of a job; at a terminal its start and its end are enough.
    logging.getLogger("lark_engine.server").setLevel(logging.WARNING if sys.stderr.isatty() else logging.INFO)
    # It warns of a missing GPU on every machine without one, also when nobody asked for DeepSpeed.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    app()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lark {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="show it")] = False,
) -> None:
    pass
