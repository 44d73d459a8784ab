"""Names of stock code that stand for ours: a table of them, put in place and checked.

A replacement is a name that stock code looks up in some module, and what it finds there instead: a named function or
class of ours, whose docstring says what it changes, why that is safe, and how a test would notice that it isn't there.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from ngrpo.errors import UserError

_ENVIRONMENT = {"where": "training environment", "do": "install the versions that envs/ locks"}


@dataclass(frozen=True)
class Replacement:
    """One name. Modules are named, not imported: the order in which verl and sglang are imported matters."""

    owner: str
    """The module in which stock code looks the name up."""
    name: str
    ours: str
    """Module and name of what it finds."""

    def __str__(self) -> str:
        return f"{self.owner}.{self.name}"

    def _ours(self) -> Any:
        module, _, name = self.ours.rpartition(".")
        return getattr(import_module(module), name)

    def install(self) -> None:
        """Put ours in place. Raises UserError where there is no such name: nothing would look ours up."""
        ours, owner = self._ours(), import_module(self.owner)
        _check_there(owner, self.name)
        setattr(owner, self.name, ours)

    def is_installed(self) -> bool:
        """Whether stock code finds ours."""
        return getattr(import_module(self.owner), self.name, None) is self._ours()


def _check_there(owner: ModuleType, name: str) -> None:
    if not hasattr(owner, name):
        raise UserError(f"{owner.__name__} has no {name} that could be replaced", **_ENVIRONMENT)


def check(replacements: Iterable[Replacement]) -> None:
    """Raise UserError naming every replacement that didn't take in this process: nothing may silently be stock."""
    stock = [str(one) for one in replacements if not one.is_installed()]
    if stock:
        raise UserError(f"these are stock, not ours, in a training process: {', '.join(stock)}", **_ENVIRONMENT)


def check_built(part: object, ours: type, instead_of: str) -> None:
    """Raise UserError unless verl has built our class in place of its own."""
    if not isinstance(part, ours):
        raise UserError(
            f"verl built {type(part).__name__} in place of {ours.__name__}, as its {instead_of}", **_ENVIRONMENT
        )


@contextlib.contextmanager
def replaced(owner: ModuleType, name: str, ours: Any) -> Iterator[None]:
    """A name replaced for the time of a block, by something that knows its caller. Raises UserError as above."""
    _check_there(owner, name)
    stock = getattr(owner, name)
    setattr(owner, name, ours)
    try:
        yield
    finally:
        setattr(owner, name, stock)
