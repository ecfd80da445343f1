"""What a bundle holds, in blocks of HTML: before it is made, and of those that were made."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from app.widgets import block, text
from lark_engine.figures import formats
from lark_engine.sharing.bundle import BundlePreview
from lark_engine.sharing.bundle_choice import BundleChoice
from lark_engine.sharing.bundle_format import BundleRecord, TextsOut
from lark_engine.sharing.shared import SharedFile
from lark_engine.store.workspace import MANIFEST

_NOUNS = {
    "pools": ("pool", "pools"), "students": ("student", "students"), "benchmarks": ("benchmark", "benchmarks"),
    "scores": ("set of scores", "sets of scores"), "selections": ("selection", "selections"),
    "checkpoints": ("checkpoint", "checkpoints"), "sweeps": ("sweep", "sweeps"),
    "evals": ("evaluation", "evaluations"), "grades": ("grading", "gradings"), "views": ("saved view", "saved views"),
}  # fmt: skip
_TEXTS: dict[TextsOut, str] = {
    "none": "no texts: problems, responses and answers stay here", "chosen": "the texts of {n} chosen {problems}",
    "all": "all texts, of {n} {problems}",
}  # fmt: skip
_MOST_REPLACED, _MOST_FILES = 100, 400


def summary(preview: BundlePreview, choice: BundleChoice) -> str:
    """What goes out in four lines: artifacts, size, texts, redaction; and what stays."""
    kinds = Counter(_kind(file.name) for file in preview.files if file.name.endswith(MANIFEST) or _is_view(file.name))
    held = ", ".join(f"{number} {_NOUNS[kind][number != 1]}" for kind in _NOUNS if (number := kinds[kind]))
    total = sum(file.num_bytes for file in preview.files)
    about = "" if preview.is_exact else "about "
    counts = Counter[str]()
    for (kind, _, _), number in preview.replaced.items():
        counts[kind] += number
    names = {"path": "path", "host": "host", "user": "user name", "secret": "secret"}
    done = ", ".join(f"{formats.count(n)} {names[kind]}{'s' if n != 1 else ''}" for kind, n in counts.items())
    redaction = (
        "nothing: paths, hosts and user names go out as they are" if not choice.redact
        else f"{done or 'no path, host or user name was found'}"
        + ("" if preview.is_exact else "; texts are looked through as they are written")
    )  # fmt: skip
    rows = {
        "Holds": held,
        "Size": f"{about}{formats.size(total)} before packing, {len(preview.files)} files",
        "Texts": _texts(choice.texts, preview.num_problems_with_texts),
        "Replaced": redaction,
        "Stays here": f"{formats.size(preview.left_out_bytes)}: weights, tokenizers, logs, what a stage resumes from",
    }
    lines = "".join(f"<dt>{name}</dt><dd>{text(said)}</dd>" for name, said in rows.items())
    loud = choice.texts != "none" or not choice.redact
    return block(f"<dl>{lines}</dl>", f"lark-bundle{' loud' if loud else ''}")


def files(preview: BundlePreview) -> str:
    """Every file with its size and how it goes out."""
    rows = "".join(
        f"<tr><td><code>{text(file.name)}</code></td><td class='number'>{formats.size(file.num_bytes)}</td>"
        f"<td>{text(file.how)}</td></tr>"
        for file in preview.files[:_MOST_FILES]
    )
    left = len(preview.files) - _MOST_FILES
    more = f"<p class='muted'>and {formats.count(left)} more; lark bundle --dry-run lists all</p>" if left > 0 else ""
    return _scrolled("Files of the bundle", ("File", "Size", "How it goes out"), rows) + more


def replaced(preview: BundlePreview) -> str:
    """What stands here, and what stands in its place there."""
    rows = "".join(
        f"<tr><td>{kind}</td><td><code>{text(original)}</code></td><td><code>{text(now) or 'nothing'}</code></td>"
        f"<td class='number'>{formats.count(number)}</td></tr>"
        for (kind, original, now), number in preview.replaced.most_common(_MOST_REPLACED)
    )
    return _scrolled("What is replaced", ("", "Here", "In the bundle", "Times"), rows)


def made(file: SharedFile, record: BundleRecord, digest: str, href: str) -> str:
    """A bundle that was made: what it is, what it holds, its checksum, and the link to save it."""
    age = formats.age(record.created_at.isoformat(), datetime.now(UTC))
    title = f"<strong>{text(record.title or file.name)}</strong>"
    redacted = "redacted" if record.redacted else "not redacted"
    facts = [
        f"{formats.size(file.num_bytes)}, {len(record.files) + 1} files", _texts(record.texts,
        record.num_problems_with_texts), redacted, f"made {age}",
    ]  # fmt: skip
    return block(
        f"{title}<div>{text(' · '.join(facts))}</div>"
        f"<div class='muted'>sha256 <code>{text(digest)}</code></div>"
        f'<a href="{text(href)}" download>Save {text(file.name)}</a>'
    )


def _texts(mode: TextsOut, number: int) -> str:
    return _TEXTS[mode].format(n=formats.count(number), problems="problem" if number == 1 else "problems")


def _kind(name: str) -> str:
    return "grades" if "/grades/" in name else name.partition("/")[0]


def _is_view(name: str) -> bool:
    return name.startswith("views/")


def _scrolled(label: str, heads: tuple[str, ...], rows: str) -> str:
    head = "".join(f"<th scope='col'>{name}</th>" for name in heads)
    return block(
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table class="lark-table">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>",
        "lark-bundle-list",
    )
