"""Numbers and times as the pages write them."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

from lark_engine.store.events import plural


def count(value: float) -> str:
    """`53,611`."""
    return f"{value:,.0f}"


def percent(value: float | None) -> str:
    """`41.7%`, or a dash for what is not known."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}%"


def interval(low: float | None, high: float | None) -> str:
    """`15.2 – 72.3`, in percent; empty when there is none."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    return f"{100 * low:.1f} – {100 * high:.1f}"


def duration(seconds: float) -> str:
    """`0.4 s`, `42 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def age(created_at: str, now: datetime) -> str:
    """`just now`, `5 min ago`, `3 h ago`, `2 days ago`, then the date; empty when the time is not readable."""
    try:
        created = datetime.fromisoformat(created_at)
    except ValueError:
        return ""
    created = created if created.tzinfo else created.replace(tzinfo=UTC)
    seconds = (now - created).total_seconds()
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min ago"
    if seconds < 86400:
        return f"{seconds // 3600:.0f} h ago"
    if seconds < 14 * 86400:
        days = int(seconds // 86400)
        return f"{days} day{'s' if days > 1 else ''} ago"
    return f"{created:%Y-%m-%d}"


def size(num_bytes: float | None) -> str:
    """`512 MB`, `1.4 GB`; a dash for what is not known."""
    if num_bytes is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if num_bytes < 1000 or unit == "TB":
            break
        num_bytes /= 1000
    return f"{num_bytes:.0f} {unit}" if num_bytes >= 100 or unit == "B" else f"{num_bytes:.1f} {unit}"


def progress(done: float, total: float, unit: str) -> str:
    """`12,034 of 31,000 tokens`; bytes as sizes."""
    if unit == "B":
        return f"{size(done)} of {size(total)}"
    return f"{count(done)} of {count(total)} {plural(unit) if unit else ''}".rstrip()


def rule(name: str) -> str:
    """A selection rule as it is written in text: `χ²`."""
    return {"chi2": "χ²", "top_b": "top-B", "best_teacher": "best teacher"}.get(name, name)


def method(name: str) -> str:
    """A training method as it is written in text: `LoRA`."""
    return {"lora": "LoRA", "full": "full-parameter"}.get(name, name)


def words(reason: str) -> str:
    """`no_boxed_answer` as `no boxed answer`."""
    return reason.replace("_", " ")


def plain_markdown(text: str) -> str:
    """Untrusted text for a place where Streamlit reads Markdown (labels, options): every sign stands for itself.

    Besides the signs of Markdown this breaks up what becomes an icon, a link or an e-mail address by itself.
    """
    escaped = re.sub(r"([\\`*_{}\[\]()#+\-.!|~$<>&:@/^=\"'])", r"\\\1", " ".join(text.split()))
    escaped = escaped.replace(":", ":\u2060").replace("\\@", "\u2060\\@")
    return re.sub(r"(?<=w)(?=ww)", "\u2060", escaped, flags=re.IGNORECASE)


def decimal(value: float | None, digits: int) -> str:
    """`6.68`, with a true minus sign; a dash for what is not known."""
    return numeral(value, f",.{digits}f")


def signed(value: float | None, digits: int) -> str:
    """`+1.925`, with a true minus sign; a dash for what is not known."""
    return numeral(value, f"+,.{digits}f")


def numeral(value: float | None, spec: str) -> str:
    """A number in a format of Python, with a true minus sign; a dash for what is not known or not finite."""
    return "–" if value is None or not math.isfinite(value) else format(value, spec).replace("-", "−")


def compact(value: float | None) -> str:
    """`950`, `12.3 k`, `22.1 M`, `1.05 B`: three digits; a dash for what is not known."""
    if value is None:
        return "–"
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}{unit}" if abs(value) < 999.5 * size else f"{value / size:,.0f}{unit}"
    return f"{value:,.0f}"


def signed_compact(value: float) -> str:
    """`+1.2 M`, `−310`."""
    return f"{'−' if value < 0 else '+'}{compact(abs(value))}"
