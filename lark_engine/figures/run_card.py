"""A training run in numbers, as Train and reports show it."""

from __future__ import annotations

from lark_engine.figures import formats
from lark_engine.figures.cards import Card, Stat
from lark_engine.training.curves import Curves
from lark_engine.training.runs import Run


def run_card(run: Run, curves: Curves, left_s: float | None = None) -> Card:
    """How a run is going, or went, in numbers; `left_s`: seconds that a live one still takes."""
    done, total = curves.number("done"), curves.number("total")
    done, total = (run.done if done is None else done), (run.total if total is None else total)
    trained_s, tokens = curves.last("train_s") or run.train_s, curves.last("tokens") or run.tokens
    share = f" · {formats.percent(done / total)}" if done is not None and total and done < total else ""
    stats = [
        Stat("Step", "–" if done is None else formats.count(done),
             f"of {formats.count(total)}{share}" if total else ""),
        Stat("Trained for", formats.duration(trained_s) if trained_s else "–",
             f"{formats.compact(tokens)} tokens" if tokens else ""),
        *([Stat("Time left", formats.duration(left_s) if left_s is not None else "–", "at the rate of this process")]
          if run.is_live else []),
        Stat("Loss", formats.numeral(curves.last("loss") or run.last_loss, ".4g"), "last logged step"),
        *([Stat("Held-out loss", formats.numeral(curves.last(curves.evaluations[0]), ".4g"), "last evaluation")]
          if curves.evaluations else []),
        Stat("Speed", formats.compact(curves.last("tokens_per_s")), "tokens/s, last logged step"),
        Stat("Device use", formats.percent(curves.last("device_use")), f"memory {_memory(curves)}"),
    ]  # fmt: skip
    return Card(key="run_figures", stats=tuple(stats), span=12)


def _memory(curves: Curves) -> str:
    """The last logged memory, which logs have in MB."""
    used = curves.last("memory_mb")
    return formats.size(None if used is None else 1e6 * used)
