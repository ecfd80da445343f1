"""A server's log: followed line by line into ours, and asked for the cause when the server has died."""

from __future__ import annotations

import logging
import re
import threading
from pathlib import Path

from lark_engine.printing import printable

# The command line shows what is below a warning only where nobody watches, in a job's log.
log = logging.getLogger("lark_engine.server")

_POLL_S = 0.5
_LOG_PREFIX = re.compile(r"^(\([^)]*pid=\d+\)\s*)?((INFO|WARNING|ERROR|DEBUG) [\d-]+ [\d:]+ \[[^\]]*\] ?)?")
_ERROR_LINE = re.compile(r"^\w*(\.\w+)*(Error|Exception|Killed)\b.*:|^\S+: error:|out of memory", re.IGNORECASE)
# What vLLM's outer processes say when an inner one failed; the cause stands above.
_FOLLOW_UP = (
    "Engine core initialization failed", "See root cause", "WorkerProc initialization failed", "EngineDeadError",
    "for the root cause", "resource_tracker",
)  # fmt: skip


class LogTail:
    """Passes each line that is added to a file on to our log, from where the file ends now, until it is closed.

    `secret` is left out of what is passed on.
    """

    def __init__(self, path: Path, name: str, *, secret: str):
        self.path = path
        self.name = name
        self.secret = secret
        self._offset = path.stat().st_size if path.exists() else 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._closing.wait(_POLL_S):
            self._pass_on()
        self._pass_on()

    def _pass_on(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                if text := printable(line.decode("utf-8", "replace").replace(self.secret, "***")).strip():
                    log.info("%s | %s", self.name, text)


def last_meaningful_line(log_path: Path) -> str:
    """The log's last exception that is a cause, else its last error, else its last line that says anything."""
    if not log_path.is_file():
        return "it wrote no log"
    with log_path.open("rb") as file:
        file.seek(max(log_path.stat().st_size - (1 << 18), 0))
        text = file.read().decode("utf-8", "replace")
    if "trust_remote_code=True" in text:
        return (
            "the model comes with Python code of its own, which is not run unless you say so: read the .py files in "
            "its folder, and if you trust them give --trust-remote-code"
        )
    said = []
    for line in text.splitlines():
        words = _LOG_PREFIX.sub("", line)
        if words.strip() and not any(part in words for part in _FOLLOW_UP):
            is_error = " ERROR " in line[:80] and not words.startswith((" ", "Traceback"))
            said.append((words.strip(), is_error))
    causes = [words for words, _ in said if _ERROR_LINE.search(words)]
    errors = [words for words, is_error in said if is_error]
    last = [words for words, _ in said]
    return printable((causes or errors or last or ["its log is empty"])[-1][:500])
