"""Errors for users: one clear sentence that says where, what, and what to do.

The command line prints a `LarkError` without a traceback and exits with code 2. Our own mistakes are `assert`s.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LarkError(Exception):
    """A mistake or a limit that the user can act on. The message names the place, the problem and the remedy."""


class ConfigError(LarkError):
    """An option, recipe key or combination of options that cannot be used."""


class PoolError(LarkError):
    """A pool, train or benchmark file that cannot be read as what it should be."""


class StudentError(LarkError):
    """A student that cannot be loaded, or whose chat template would make the result wrong."""


class DeviceError(LarkError):
    """A device that was asked for and is not there, or that has too little memory."""


class StoreError(LarkError):
    """A workspace that cannot be read or written."""


class ServerError(LarkError):
    """A model server that did not start, died or does not answer."""


class TrainingError(LarkError):
    """A training run that must stop: a non-finite loss, a lost rank, data that holds nothing to train on."""


class AccessError(LarkError):
    """Something that the one who acts may not do here."""


class StoppedEarly(LarkError):
    """A run that was asked to stop before its end and did: what it has done is kept, and it can be resumed."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'lr'?"` for the nearest known word, or the list of all when none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; known are: {', '.join(names)}"


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
