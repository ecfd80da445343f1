"""What looks like a path or a web address in a text, and what only looks like one: `1/2`, `km/h`, `f:\\R\\to\\R`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

# Folders that stand at the top of a Unix system, here or where a log came from.
_TOPS = (
    "home", "Users", "root", "mnt", "media", "data", "datasets", "scratch", "work", "workspace", "workspaces",
    "project", "projects", "nfs", "gpfs", "lustre", "beegfs", "fsx", "efs", "cluster", "shared", "share", "storage",
    "srv", "opt",
    "usr", "var", "tmp", "etc", "run", "dev", "proc", "sys", "lib", "bin", "private", "Volumes", "Library",
    "Applications", "content", "kaggle", "models", "cache", "app", "code", "export",
)  # fmt: skip
_SUFFIX = (
    r"\.(?:jsonl?|parquet|arrow|csv|tsv|txt|md|html?|pdf|tex|png|svg|py|ipynb|sh|ya?ml|toml|ini|cfg|log|out|err|zip|gz|"
    r"zst|tar|safetensors|gguf|pt|pth|bin|model|jinja|lock)\b"
)
_PART = r"[\w@+%~=#.-]*[\w@+%~=#-]"
_MORE = rf"(?:/+{_PART})*/*"
# A path in a text stands behind a blank, a quote, a bracket or a sign, and never behind a letter, a digit or a brace.
_BEFORE = r"(?<![\w…>.)}\]/$^*+~\\-])"
_FILE = r"(?:file:/*(?=/))?"

URL = re.compile(
    r"(?P<scheme>(?<![a-zA-Z0-9+.-])[a-zA-Z][a-zA-Z0-9+.-]*(?<!file)://)(?:(?P<login>[^\s/@\"'<>]+)@)?"
    r"(?P<host>\[[0-9a-fA-F:.]+\]|[\w.-]*\w)(?P<port>:\d+)?(?P<rest>[^\s\"'<>`]*)"
)

_WINDOWS_TOP = r"(?:Users|Documents and Settings|Program Files(?: \(x86\))?|ProgramData|Windows|Temp|tmp)"
_WINDOWS_PART = r"[^\s\\/:*?\"<>|{}$^,;()]+"
WINDOWS = re.compile(
    rf"(?<![A-Za-z])[A-Za-z]:[\\/]+{_WINDOWS_TOP}(?:[\\/]+{_WINDOWS_PART})*[\\/]*"
    rf"|(?<![A-Za-z])[A-Za-z]:[\\/]+(?:{_WINDOWS_PART}[\\/]+)*[^\s\\/:*?\"<>|{{}}$^,;()]*?{_SUFFIX}"
    rf"|(?<![\w\\])\\\\[\w.-]+(?:\\+{_WINDOWS_PART})*?\\+[^\s\\/:*?\"<>|{{}}$^,;()]*?{_SUFFIX}"
)
"""A path with a drive letter or of a share: below a known folder or with a suffix; LaTeX is full of backslashes."""

MAY_BE_POSIX = re.compile(r"(?:^|[^\w…>.)}\]/$^*+~\\-])[/~](?=[\w/])|file:")
MAY_BE_WINDOWS = re.compile(r":[\\/]|\\\\\w")
"""Quick looks at a text: without a match there is no such path in it, below no known root at least."""

PATH = re.compile(
    r"(?:file:/*)?/[^\W\d][^\n\0]*/[^\n\0]*[^\s/.]/*|~[\w.-]*/[^\n\0]*[^\s/]/*"
    r"|[A-Za-z]:[\\/][^\n\0{}$^]*[^\s\\/{}$^][\\/]*|\\\\[\w.-]+\\[^\n\0{}$^]*[^\s\\/{}$^][\\/]*"
)
"""A whole text that is one path; it may hold blanks."""
UNDER_A_HOME = re.compile(r"(?:file:)?/+(?:\w+/+)?(?:home\d*|Users)/+[^/]+|(?i:[a-z]:[\\/]+Users[\\/]+[^\\/]+)")
"""The home folder of somebody."""


def posix_pattern(roots: Sequence[str]) -> re.Pattern[str]:
    """Finds absolute paths, `~/…` and `file:…` in a text.

    Below one of `roots` (one of two parts or more is found behind anything), below a folder at the top of this or any
    Unix system, with a suffix of a file at its end, or of three parts. One in quotes may hold blanks.
    """
    try:
        here = [folder.name for folder in Path("/").iterdir() if folder.is_dir()]
    except OSError:
        here = []
    tops = "|".join(sorted({re.escape(top) for top in (*_TOPS, *here)}, key=len, reverse=True))
    deep = "|".join(re.escape(root) for root in roots if root.count("/") > 1) or "(?!)"
    shallow = "|".join(re.escape(root) for root in roots if root.count("/") == 1) or "(?!)"
    return re.compile(
        rf"(?<=')/(?:{tops})\d*/[^'\n]+(?=')|(?<=\")/(?:{tops})\d*/[^\"\n]+(?=\")"
        rf"|(?:{_FILE}(?:{deep})|{_BEFORE}{_FILE}(?:{shallow})){_MORE}(?![\w@+%~=#-])"
        rf"|{_BEFORE}{_FILE}/+(?:(?:{tops})\d*/+{_PART}{_MORE}"
        rf"|[^\W\d][\w@+%~=#.-]*(?:/+{_PART})*?/+[\w@+%~=#.-]*?{_SUFFIX}"
        rf"|[^\W\d][\w@+%~=#.-]+(?:/+{_PART}){{2,}}/*)"
        rf"|{_BEFORE}~(?:/+{_PART}|[A-Za-z][\w.-]+/+{_PART}/+{_PART}){_MORE}"
        rf"|(?<!\w)file:/+{_PART}{_MORE}"
    )
