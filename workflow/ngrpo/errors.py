"""The one exception for mistakes that a user can mend: it says what is wrong, where, and what to do."""

import difflib
import errno
from collections.abc import Iterable

from ngrpo.terminal import escaped, printable, quoted

LONGEST_NAME = 200
"""Characters of a name beyond which no similar one is looked for: the comparison is quadratic."""
MOST_NAMES, NEAREST = 12, 3
"""Known names that an error lists whole; of more than that only so many nearest ones are shown."""
LONGEST_PART = 2000
"""Characters of a message's part; a foreign value in it is cut much earlier (`ngrpo.terminal.quoted`)."""


class UserError(Exception):
    """A user's mistake, or an input that can't be used; shown without a traceback, exit code 1.

    what: what is wrong, one sentence. where: file and key, command or row. do: what mends it. The message shows them
    with control characters escaped, and indents further lines of a part: foreign text in it can't fake another part.
    """

    label = "error"
    """The word before the message on the command line."""

    def __init__(self, what: str, *, where: object | None = None, do: str | None = None):
        self.what, self.where, self.do = what, where, do
        lines = [_part(what)]
        if where is not None:
            lines.append(f"  where: {_part(where)}")
        if do is not None:
            lines.append(f"  do:    {_part(do)}")
        super().__init__("\n".join(lines))


class Unfinished(UserError):
    """Not a mistake: work that ended early, or a fault that another try may not meet. A failed job is tried again."""

    label = "unfinished"


def ends_in_mistake(log: str) -> bool:
    """Whether a command's output ends in a mistake that another try would only repeat."""
    lines = log.rstrip().splitlines()
    labels = (f"{UserError.label}: ", f"{Unfinished.label}: ")
    last = next((number for number in reversed(range(len(lines))) if lines[number].startswith(labels)), None)
    if last is None:
        return False
    after = lines[last + 1 :]
    is_ours = not after or any(line.startswith(("  where: ", "  do: ")) for line in after)
    return is_ours and lines[last].startswith(labels[0])


def _part(value: object) -> str:
    text = str(value)
    if len(text) > LONGEST_PART:
        text = f"{text[:LONGEST_PART]}… ({len(text):,} characters)"
    return escaped(text).replace("\n", "\n         ")


MENDING = {
    errno.ENOSPC: "free space on that disk, then run it again",
    errno.EDQUOT: "free space in your quota, then run it again",
    errno.EACCES: "check who may read and write it",
    errno.EPERM: "check who may read and write it",
    errno.EROFS: "write to a folder that isn't read-only",
    errno.ENOENT: "check the path",
    errno.EEXIST: "move what is there to another place",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOTDIR: "name a folder; a part of this path is a file",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ELOOP: "a link leads back to itself; name the file itself",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
"""What to do about what the system refused."""


MENDED_MEANWHILE = {errno.ENOSPC, errno.EDQUOT}


def file_error(error: OSError, where: object | None = None) -> UserError:
    """The system's refusal of a file (full disk, permission, missing) as the user's error. where: if it names none.

    A full disk, a network or a device that fails may be better at the next try: these are `Unfinished`.
    """
    what = (error.strerror or str(error)).lower()
    do = MENDING.get(error.errno or 0, "`ngrpo --traceback …` shows at which step it was")
    kind = UserError if error.errno in MENDING.keys() - MENDED_MEANWHILE else Unfinished
    return kind(what, where=error.filename if error.filename is not None else where, do=do)


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to a mistyped one, or None where nothing is close."""
    if len(name) > LONGEST_NAME:
        return None
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def listed(names: Iterable[str]) -> str:
    """Names as an error lists them: so many, and how many there are."""
    shown = sorted(names)
    more = f", … ({len(shown):,} in all)" if len(shown) > MOST_NAMES else ""
    return f"{', '.join(map(quoted, shown[:MOST_NAMES])) or 'none'}{more}"


def name_hint(name: str, known: Iterable[str], listed_by: str | None = None) -> str:
    """What to say of a name that doesn't exist: the one that was meant, all that are known where these are few, else
    the nearest and the command that lists them all (listed_by)."""
    names = sorted(known)
    if near := nearest_name(name, names):
        return f"did you mean '{printable(near)}'?"
    if len(names) <= MOST_NAMES:
        return f"known: {listed(names)}"
    close = difflib.get_close_matches(name[:LONGEST_NAME], names, n=NEAREST, cutoff=0.0)
    said = f"the nearest: {', '.join(map(quoted, close))}"
    return f"{said}; all of them: {listed_by}" if listed_by else f"{said} (of {len(names):,})"


def unknown_name(
    kind: str, name: str, known: Iterable[str], *, where: object | None = None, listed_by: str | None = None
) -> UserError:
    """The error for an id that doesn't exist, with the nearest one that does: see `name_hint`."""
    return UserError(f"there is no {kind} '{quoted(name)}'", where=where, do=name_hint(name, known, listed_by))
