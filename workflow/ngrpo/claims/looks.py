"""What was looked at before: every verdict that a report gave, so that the next knows how many there were.

results/{scale}/looks.json holds, for each claim and question, the looks in their order. It is no rule's output: making
a report again must not forget what was seen. Without it, adding seeds spends as if nothing had been seen. Who judges
and records holds a lock, so that of two at once the later one waits and knows the other's look.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from pydantic import Field

from ngrpo.errors import UserError
from ngrpo.files import read_json, write_json
from ngrpo.statistics.multiplicity import Look, add_look
from ngrpo.study.base import Config
from ngrpo.study.layout import Results
from ngrpo.terminal import echo

Looks = dict[str, dict[str, dict[str, list[Look]]]]
"""Claim → question → "for" or "against" → looks."""
Seen = dict[str, dict[str, dict[str, Look]]]
"""The same of one report: the look that it is."""
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
UNLOCKABLE = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)


class _SavedLook(Config):
    seeds: tuple[str, ...] = Field(min_length=1)
    p: float = Field(ge=0, le=1)


_Question = Literal["on these benchmarks", "on problems like these"]
_Saved = dict[str, dict[_Question, dict[Literal["for", "against"], list[_SavedLook]]]]


@contextmanager
def one_at_a_time(results: Results) -> Iterator[None]:
    """Judge and record within this: another process that does so meanwhile waits, and says so.

    Where nothing can be written nothing is recorded, and nothing is locked; where the file system has no locks, a line
    says so.
    """
    results.root.mkdir(parents=True, exist_ok=True)
    held = _opened(results)
    try:
        if held is not None:
            _lock(held, results)
        yield
    finally:
        if held is not None:
            os.close(held)


def _opened(results: Results) -> int | None:
    """The lock's file; None where it isn't there and can't be made."""
    try:
        return os.open(results.looks_lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as e:
        if e.errno not in UNWRITABLE:
            raise
    try:  # another's file, who shares the folder
        return os.open(results.looks_lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None


def _lock(held: int, results: Results) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        echo(f"waiting: another process looks at the claims of {results.root}")
        fcntl.flock(held, fcntl.LOCK_EX)
    except OSError as e:
        if e.errno not in UNLOCKABLE:
            raise
        echo(f"{results.looks}: this file system has no locks; don't make two reports of one study at once")


def read_looks(results: Results) -> Looks:
    """The looks so far; none where there is no file. Raises UserError for a file that isn't one."""
    if not results.looks.exists():
        return {}
    try:
        saved = read_json(results.looks, _Saved)
    except UserError as e:
        do = f"restore it from a copy; without it (move {results.looks} away) no earlier look counts, and every p is"
        raise UserError(
            f"the record of looks at claims can't be used: {e.what}", where=e.where, do=f"{do} too small by these"
        ) from None
    return {
        claim: {
            question: {side: [Look(one.seeds, one.p) for one in looks] for side, looks in sides.items()}
            for question, sides in questions.items()
        }
        for claim, questions in saved.items()
    }


def record_looks(results: Results, seen: Seen) -> None:
    """Add what one report saw to the looks of before; nothing is written where it was seen already."""
    before = read_looks(results)
    after = {claim: {q: dict(sides) for q, sides in questions.items()} for claim, questions in before.items()}
    for claim, questions in seen.items():
        for question, sides in questions.items():
            for side, look in sides.items():
                known = after.setdefault(claim, {}).setdefault(question, {})
                known[side] = add_look(known.get(side, []), look)
    if after == before:
        return
    saved = {
        claim: {
            question: {
                side: [{"seeds": list(look.seeds), "p": look.p} for look in looks] for side, looks in sides.items()
            }
            for question, sides in questions.items()
        }
        for claim, questions in after.items()
    }
    write_json(results.looks, saved)
