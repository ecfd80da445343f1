"""Workspaces that are only shown: what a bundle unpacks to is what its checksums say, and stays so."""

from __future__ import annotations

from pathlib import Path

from lark_engine.errors import StoreError

BUNDLE = "bundle.json"


def require_own(root: Path) -> None:
    """Errors: `StoreError` for an unpacked bundle, in which nothing is made, started or noted."""
    if (root / BUNDLE).is_file():
        raise StoreError(f"{root}: is an unpacked bundle, which is only shown; work in a workspace of your own")
