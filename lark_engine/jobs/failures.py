"""Why a job failed, and what to do: a reason, a sentence, the place in an input, a remedy, and whether to try again.

What the stage itself reported is believed before the signal that ended it, and that before the log. But a source may
name a cause, or only what followed from one (a rank waits for another that has ended), or give a mere hint (a crash);
a cause from any source comes before what follows from one: see `Weight`.

Texts are recognized by `signs.SIGNS`. Imports nothing heavy.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lark_engine import errors
from lark_engine.errors import LarkError
from lark_engine.jobs.remedies import RESUME, computed_remedy
from lark_engine.jobs.signs import SIGNS, Reason, Sign, Weight
from lark_engine.printing import one_line


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How the command of a job ended, as far as it is known.

    `command`: as shown to people; flags may be written --a-b, --a_b or --a=b. `exit_code` None: not known, or killed
    by a signal. `signal`: number of the signal that ended it. `error`, `message`: name and text of the exception that
    the stage itself reported. `log`: the end of output.log, at most 64 KB. `oom_kills`: kills by the kernel's
    out-of-memory killer on this machine while the job ran. `free_bytes`: room on the workspace's disk at the end.
    `memory_bytes`: memory of the machine, or of its cgroup.
    """

    command: Sequence[str]
    exit_code: int | None = None
    signal: int | None = None
    error: str | None = None
    message: str | None = None
    log: str = ""
    oom_kills: int = 0
    free_bytes: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a job failed. Message and remedy are written as all our errors are, so that "{message}; {remedy}" is one.

    `place`: "pool.jsonl:1042" when the input's place is known. `is_transient`: the same command may well succeed when
    it is simply run again.
    """

    reason: Reason
    message: str
    place: str | None
    remedy: str
    is_transient: bool


@dataclass(frozen=True)
class _Kind:
    """What every failure of a reason has in common: what happened, and what to do where nothing better is known."""

    happened: str
    remedy: str


_KINDS: dict[Reason, _Kind] = {
    "device_memory": _Kind("the device's memory is used up", "use a smaller model, or a device with more memory"),
    "host_memory": _Kind("the machine's memory is used up", "use a machine with more memory, or run less beside it"),
    "disk_full": _Kind("the disk is full", f"free some space and {RESUME}"),
    "not_writable": _Kind("a file or folder may not be written", "fix its permissions, or give another --workspace"),
    "bad_input": _Kind("an input cannot be used", f"mend it and {RESUME}"),
    "bad_option": _Kind("an option cannot be used", "correct it and run the command again"),
    "import_or_version": _Kind(
        "a library is missing or does not fit the others",
        "install what LARK Studio needs anew, in one environment: pip install -e .",
    ),
    "collective_timeout": _Kind("a training process waited in vain for another one", RESUME),
    "server_start": _Kind("the model server did not start, or ended", f"read its log and {RESUME}"),
    "network": _Kind("another computer could not be reached", f"check the network and {RESUME}"),
    "device_missing": _Kind(
        "the device is not there, or not free", "see with nvidia-smi which devices there are and who uses them"
    ),
    "device_error": _Kind(
        "the device failed", f"see with nvidia-smi and dmesg whether it is sound, reset it if not, and {RESUME}"
    ),
    "killed": _Kind("the job was ended from outside", RESUME),
    "numbers": _Kind("a number is not finite", "lower --lr, or use --dtype float32"),
    "program_error": _Kind("the program failed", "please report it with the job's log"),
}  # fmt: skip

# What an error of ours means where its text has no sign of anything else; others are judged by their text.
_OF_CLASS: dict[str, Reason] = {
    "ConfigError": "bad_option", "StoppedEarly": "bad_option", "PoolError": "bad_input", "StudentError": "bad_input",
    "StoreError": "bad_input", "DeviceError": "device_missing", "ServerError": "server_start",
    "TrainingError": "program_error", "FileNotFoundError": "bad_input", "UnicodeDecodeError": "bad_input",
}  # fmt: skip


# Their texts quote what a user wrote, where anything may stand: only signs of their own count.
_QUOTING = ("PoolError", "ConfigError")


@dataclass(frozen=True)
class _Finding:
    """What one source says: `text` is a sentence of ours when `is_ours`, else what another program wrote."""

    reason: Reason
    text: str = ""
    weight: Weight = Weight.CAUSE
    is_ours: bool = False
    is_transient: bool = False
    remedy: str = ""

    @classmethod
    def of(cls, sign: Sign, text: str, *, is_ours: bool = False) -> _Finding:
        return cls(sign.reason, text, sign.weight, is_ours, sign.is_transient, sign.remedy)


def _said(
    reason: Reason, text: str, weight: Weight = Weight.CAUSE, *, transient: bool = False, remedy: str = ""
) -> _Finding:
    return _Finding(reason, text, weight, is_ours=True, is_transient=transient, remedy=remedy)


_SIGNALS = {
    signal.SIGKILL: _said(
        "killed", "a process was killed (SIGKILL), and as far as the kernel tells, not for memory", transient=True,
        remedy=f"{RESUME}; if it is killed again, ask the administrator, or see in `journalctl -k`, by whom",
    ),
    signal.SIGTERM: _said("killed", "the job was asked to end (SIGTERM)", transient=True),
    signal.SIGHUP: _said("killed", "the job lost its terminal (SIGHUP)", transient=True),
    signal.SIGINT: _said("killed", "the job was interrupted (SIGINT, Ctrl-C)"),
    signal.SIGXCPU: _said(
        "killed", "the job used up its processor time (SIGXCPU)", remedy=f"raise that limit (ulimit -t), then {RESUME}"
    ),
    signal.SIGXFSZ: _said(
        "disk_full", "a file outgrew what is allowed (SIGXFSZ)", remedy=f"raise that limit (ulimit -f), then {RESUME}"
    ),
    signal.SIGBUS: _said(
        "host_memory", "the program crashed (SIGBUS): usually /dev/shm, or the disk behind a mapped file, is full",
        Weight.HINT, remedy=f"enlarge /dev/shm (of a container: --shm-size) or free some space, then {RESUME}",
    ),
    signal.SIGILL: _said(
        "import_or_version", "the program crashed (SIGILL): usually a library is built for another processor",
        Weight.HINT, remedy="install builds for this processor, or use another machine",
    ),
    signal.SIGSEGV: _said("program_error", "the program crashed (SIGSEGV)", Weight.HINT),
    signal.SIGABRT: _said("program_error", "the program gave up (SIGABRT)", Weight.HINT),
    signal.SIGFPE: _said("program_error", "the program crashed (SIGFPE)", Weight.HINT),
}  # fmt: skip
# With these a kill for want of memory may be what came first.
_MAYBE_OOM = (None, signal.SIGTERM, signal.SIGABRT)
_OOM = _Finding("host_memory", "the kernel's out-of-memory killer ended a process of this machine")

# Exit codes of what a signal ended: 128 + n as shells say it, 256 - n as Python's sys.exit(-n) becomes.
_STATUS = re.compile(r"ended with (?:exit code|status) (-?\d{1,4})")
_READ = 8192
_QUOTED = 300
_TOLD = 1000

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_OURS = re.compile(r"^lark: (.+)", re.MULTILINE)
_USAGE = re.compile(
    r"(?:^|│ )((?:No such (?:option|command)|Missing (?:option|argument)|Invalid value|Option ).*)", re.M
)
_EXCEPTION = re.compile(
    r"^(?:\[rank\d+\]: ?)?((?:[A-Za-z_]\w{0,80}\.){0,8}\w{1,80}(?:Error|Exception|Expired)\b.*)", re.MULTILINE
)
_CHILD_FAILED = ("ChildFailedError", "CalledProcessError")
_NOISE = re.compile(
    r"^\[rank\d+\]: ?|^\([^)\n]{1,60}pid=\d+\) ?|^(?:INFO|WARNING|ERROR) [\d-]+ [\d:]+ \[[^\]\n]{1,60}\] ?"
)
# A path with a line or an element; one with an extension, and perhaps a benchmark's problem; that of a missing file.
_PLACE = re.compile(
    r"((?:(?!: )[^\n]){1,500}?(?::\d+|\[\d+\])|[^\n:]{1,500}\.\w{1,8}(?:: problem \d+)?)(?=: )"
    r"|.{0,200}No such file[^'\n]{0,40}'([^'\n]+)'"
)
# "; " and one of these begins what an error of ours tells the user to do.
_INSTRUCTION = re.compile(
    r"; (?=(?:add|ask|change|check|choose|clone|compare|convert|copy|correct|did you mean|end|fetch|fix|free|generate"
    r"|give|grade|if you|import|install|is (?:it|this)|leave|let|lower|make|mark|mend|move|name|please|put|raise|read"
    r"|relax|remove|rename|run|save|say|score|see|select|set|shorten|split|start|state|stop|turn|unset|update|upgrade|use"
    r"|wait|write)\b|`(?:lark|pip) |--\w)"
)


def classify(ending: Ending) -> Failure:
    """The failure behind an ending that was no success. Never raises, whatever the texts hold."""
    log = _ANSI.sub("", ending.log[-(1 << 16) :]).replace("\r", "\n")
    reported = _reported(ending, log)
    number = _signal_number(ending, reported)
    sources = (_by_kernel(ending, number), reported, _by_signal(ending, number), _by_log(log), _by_exit(ending))
    found = max((finding for finding in sources if finding is not None), key=lambda finding: finding.weight)
    said, advice = _split(found.text) if found.is_ours else (_happened(found), "")
    remedy = found.remedy or computed_remedy(ending, found.reason, found.text, log) or advice
    return Failure(
        reason=found.reason, message=one_line(said, _TOLD), place=_place(found),
        remedy=one_line(remedy or _KINDS[found.reason].remedy, _TOLD), is_transient=found.is_transient,
    )  # fmt: skip


def _by_kernel(ending: Ending, number: int | None) -> _Finding | None:
    """A kill for want of memory, of whichever process: it explains an end that nothing else does."""
    return replace(_OOM, weight=Weight.CONSEQUENCE) if ending.oom_kills and number in _MAYBE_OOM else None


def _reported(ending: Ending, log: str) -> _Finding | None:
    """What the stage said: by its exception, or where that was not kept, by the sentence that `lark` ends with."""
    name, message = (ending.error or "").rpartition(".")[2], (ending.message or "")[:_READ]
    if not name and ending.exit_code == 2:
        if sentences := _OURS.findall(log):
            name, message = "LarkError", sentences[-1][:_READ]
        elif usage := _USAGE.findall(log):
            return _Finding("bad_option", usage[-1].rstrip(" │"))
    if not name:
        return None
    if name == "LarkError" and (place := _PLACE.match(message)) and place[0][-1:] in "0123456789]":
        name = "PoolError"
    kind = getattr(errors, name, None)
    is_ours = isinstance(kind, type) and issubclass(kind, LarkError)
    # The name of another's exception may say more than its text.
    text = message if is_ours else ": ".join(dict.fromkeys([name, message or name]))
    for sign in SIGNS:
        fits_class = name == "LarkError" or (name in sign.of if sign.of else name not in _QUOTING)
        if fits_class and sign.text.search(text):
            return _Finding.of(sign, text, is_ours=is_ours)
    return _Finding(_OF_CLASS.get(name, "bad_option" if is_ours else "program_error"), text, is_ours=is_ours)


def _signal_number(ending: Ending, reported: _Finding | None) -> int | None:
    """The signal that ended the job, or the process of which it reports no more than the exit status."""
    status = _STATUS.search(reported.text) if reported is not None and reported.weight < Weight.CAUSE else None
    codes = (ending.exit_code, int(status[1]) if status else None)
    numbers = [number for code in codes if code is not None for number in (-code, code - 128, 256 - code)]
    return ending.signal or next((number for number in numbers if number in _SIGNALS), None)


def _by_signal(ending: Ending, number: int | None) -> _Finding | None:
    if number == signal.SIGKILL and ending.oom_kills:
        return _OOM
    if number is None or number in _SIGNALS:
        return None if number is None else _SIGNALS[signal.Signals(number)]
    return _said("killed", f"the job was ended by signal {number}", Weight.HINT)


def _by_log(log: str) -> _Finding | None:
    """The last cause that the log names, else the last consequence of one, else the last exception."""
    found: list[tuple[Weight, int, _Finding]] = []
    for sign in SIGNS:
        matches = [] if sign.of else list(sign.text.finditer(log))
        if matches:
            start = matches[-1].start()
            found.append((sign.weight, log.count("\n", 0, start), _Finding.of(sign, _line(log, start))))
    if found:
        return max(found, key=lambda item: item[:2])[2]
    exceptions = [said for said in _EXCEPTION.findall(log) if not any(name in said for name in _CHILD_FAILED)]
    return _Finding("program_error", exceptions[-1], Weight.HINT) if exceptions else None


def _by_exit(ending: Ending) -> _Finding:
    if ending.exit_code is None:
        happened = "the job ended and nothing is left that says why (did the machine restart?)"
        return _said("killed", happened, Weight.ENDED, transient=True)
    happened = f"the program ended with exit code {ending.exit_code} and said nothing"
    return _said("program_error", happened, Weight.ENDED)


def _line(log: str, place: int) -> str:
    """The line of a log at a place, without what loggers put before it; around the place where it is very long."""
    start = max(log.rfind("\n", 0, place) + 1, place - _QUOTED // 2)
    end = log.find("\n", place)
    line = log[start : len(log) if end < 0 else end][: 2 * _QUOTED]
    while (shorter := _NOISE.sub("", line)) != line:
        line = shorter
    return line.strip()


def _happened(found: _Finding) -> str:
    quoted = one_line(found.text, _QUOTED)
    return f"{_KINDS[found.reason].happened}: {quoted}" if quoted else _KINDS[found.reason].happened


def _split(text: str) -> tuple[str, str]:
    """What happened and what to do, of a sentence of ours: it tells the latter after the first "; " with a verb."""
    parts = _INSTRUCTION.split(text, maxsplit=1)
    return parts[0], parts[1] if len(parts) > 1 else ""


def _place(found: _Finding) -> str | None:
    if found.reason not in ("bad_input", "bad_option") or not (match := _PLACE.match(found.text)):
        return None
    return one_line(match[1] or match[2], _QUOTED)
