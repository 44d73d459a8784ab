"""Options and arguments that several commands take."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
PATH = click.Path(path_type=Path)
SPEC = ".spec.json"  # beside what a command makes: the spec that it was made for

spec_argument = click.argument("spec", type=FILE)
out_option = click.option("--out", type=PATH, required=True, help="What to write; whole or not at all.")
data_folder_option = click.option("--data-folder", type=FOLDER, help="Where data sets of kind `folder` lie.")
_study_options = [
    click.option("--config", type=FOLDER, default=Path("config"), show_default=True, help="The study's configuration."),
    click.option("--scale", default="toy", show_default=True, help="A file of the configuration's scales/."),
    click.option("--results", type=FOLDER, default=Path("results"), show_default=True, help="Where results go."),
]


def with_study(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name a study."""
    for option in reversed(_study_options):
        command = option(command)
    return command
