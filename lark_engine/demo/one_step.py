"""One-step stories with small numbers: what a 135M student can already do, or learns to write down."""

from __future__ import annotations

from lark_engine.demo.cast import Cast, Story
from lark_engine.demo.derivation import Derivation


def counting_more(cast: Cast) -> Story:
    (who, other), (item, _) = cast.names(), cast.goods()
    have, more = cast.number(2, 9), cast.number(1, 9)
    d = Derivation()
    d.add(f"the number of {item}", have, "+", more, item)
    return Story(f"{who} has {have} {item}. {other} gives {who} {more} more. How many {item} does {who} have now?", d)


def leftovers(cast: Cast) -> Story:
    (who, _), (item, _) = cast.names(), cast.goods()
    gone, left = cast.number(1, 8), cast.number(1, 9)
    d = Derivation()
    d.add(f"the number of {item} left", gone + left, "-", gone, item)
    return Story(
        f"{who} brings {gone + left} {item} to the {cast.place()} and sells {gone} of them. How many {item} are left?",
        d,
    )


def rows(cast: Cast) -> Story:
    item, _ = cast.goods()
    count, size = cast.number(2, 6), cast.number(2, 10)
    d = Derivation()
    d.add(f"the number of {item}", count, "*", size, item)
    return Story(
        f"The {cast.place()} has {count} shelves with {size} {item} on each. How many {item} are there in all?",
        d,
    )


def sharing(cast: Cast) -> Story:
    item, _ = cast.goods()
    friends, each = cast.number(2, 5), cast.number(2, 9)
    d = Derivation()
    d.add(f"the number of {item} for each friend", friends * each, "/", friends, item)
    return Story(f"{friends} friends share {friends * each} {item} equally. How many {item} does each of them get?", d)
