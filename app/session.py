"""What a session of the dashboard looks at: the workspace that it was started for."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from lark_engine.store.workspace import Workspace

HOME_VARIABLE = "LARK_HOME"
_DEFAULT = Path(__file__).resolve().parents[1] / "cache"


def current_workspace() -> Workspace:
    """The workspace in `LARK_HOME` (set by `lark serve`), else the source tree's `cache`."""
    return Workspace(os.environ.get(HOME_VARIABLE) or _DEFAULT)


def shell_command(command: str) -> str:
    """A command as it must be typed in the source tree to act on this session's workspace."""
    root = current_workspace().root
    return command if root == _DEFAULT else f"{HOME_VARIABLE}={shlex.quote(str(root))} {command}"
