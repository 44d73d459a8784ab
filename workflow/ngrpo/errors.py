"""The one exception for mistakes that a user can mend: it says what is wrong, where, and what to do."""

import difflib
import re
from collections.abc import Iterable


class UserError(Exception):
    """A user's mistake, or an input that can't be used; shown without a traceback, exit code 1.

    what: what is wrong, one sentence. where: file and key, command or row. do: what mends it.
    """

    label = "error"
    """The word before the message on the command line."""

    def __init__(self, what: str, *, where: object | None = None, do: str | None = None):
        self.what, self.where, self.do = what, where, do
        lines = [what]
        if where is not None:
            lines.append(f"  where: {where}")
        if do is not None:
            lines.append(f"  do:    {do}")
        super().__init__("\n".join(lines))


class Unfinished(UserError):
    """Not a mistake: work that ended early, or a fault that another try may not meet. A failed job is tried again."""

    label = "unfinished"


def ends_in_mistake(log: str) -> bool:
    """Whether a command's output ends in a mistake that another try would only repeat."""
    messages = re.findall(r"^(error|unfinished): .*\n(?:.*\n)*?  (?:where|do): ", log + "\n", re.MULTILINE)
    return messages[-1:] == [UserError.label]


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to a mistyped one, or None where nothing is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def unknown_name(kind: str, name: str, known: Iterable[str], *, where: object | None = None) -> UserError:
    """The error for an id that doesn't exist, with the nearest one that does."""
    names = sorted(known)
    near = nearest_name(name, names)
    do = f"did you mean '{near}'?" if near else f"known: {', '.join(names) or 'none'}"
    return UserError(f"there is no {kind} '{name}'", where=where, do=do)
