"""The group of all commands: names the nearest command, and turns a user's mistake into one message.

All that a command shows goes through `ngrpo.terminal.echo`: errors, click's own messages and tracebacks too.
"""

import io
import os
import sys
import traceback as tracebacks
from types import TracebackType
from typing import Any

import click

from ngrpo import __version__
from ngrpo.errors import UserError, file_error, unknown_name
from ngrpo.terminal import echo


class Commands(click.Group):
    """A group that names the nearest command and turns UserErrors into one message."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's; an unknown command's message names the nearest one."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise unknown_name("command", args[0], self.list_commands(ctx), where="ngrpo")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As click's, with UserErrors shown plainly; a missing package and a file that the system refuses are some."""
        sys.excepthook = _show_traceback
        try:
            code = super().main(*args, **kwargs | {"standalone_mode": False})
            sys.exit(code if isinstance(code, int) else 0)
        except click.ClickException as e:
            shown = io.StringIO()
            e.show(shown)
            echo(shown.getvalue().rstrip("\n"), err=True)
            sys.exit(e.exit_code)
        except click.Abort:
            echo("Aborted!", err=True)
            sys.exit(1)
        except UserError as e:
            error: UserError = e
        except OSError as e:
            if e.errno is None:
                raise
            error = file_error(e)
        except ModuleNotFoundError as e:
            if e.name is None or e.name.split(".")[0] == "ngrpo":
                raise
            what = f"the package '{e.name}' isn't in this environment"
            error = UserError(what, where=sys.prefix, do="run it in the other environment (docs/environments.md)")
        if "--traceback" in sys.argv:
            echo(tracebacks.format_exc(), err=True)
        echo(f"{error.label}: {error}", err=True)
        sys.exit(1)


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Python's traceback; an exception's text may be foreign."""
    echo("".join(tracebacks.format_exception(kind, error, trace)).rstrip("\n"), err=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--traceback", is_flag=True, help="Show where an error was raised.")
def main(traceback: bool) -> None:
    """Reproduce N-GRPO: each stage of the study as a command."""
    # stages print their own progress; the libraries' bars and advice would bury it in logs
    for name, value in (("TQDM_DISABLE", "1"), ("TRANSFORMERS_VERBOSITY", "error"), ("PYTHONUNBUFFERED", "1")):
        os.environ.setdefault(name, value)
