"""`python -m lark_engine.cli` is `lark`."""

from __future__ import annotations

from lark_engine.cli import main

if __name__ == "__main__":
    main()
