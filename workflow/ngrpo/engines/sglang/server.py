"""sglang's own HTTP server with input mixing: `ngrpo serve` (docs/sglang.md).

A request mixes that brings `custom_params` made by `request_params`, and its answer holds the record that `record_of`
takes. Others get what stock sglang answers.
"""

import os
import signal
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ngrpo.engines import loopback
from ngrpo.engines import sglang as plugin
from ngrpo.engines.model_folder import model_config
from ngrpo.engines.sglang import cpu
from ngrpo.scratch import make_scratch


def server_settings(model: Path, options: Sequence[str]) -> Any:
    """sglang's ServerArgs for this machine. options: those of `python -m sglang.launch_server`, but for the model.

    Ends the program, as sglang's does, where an option isn't known. Code in a model's folder is never run.
    """
    from sglang.srt.server_args import ServerArgs

    parser = ArgumentParser(prog="ngrpo serve", usage="ngrpo serve MODEL [--neighbors FILE] [-- options of sglang]")
    ServerArgs.add_cli_args(parser)
    given = parser.parse_args(["--model-path", str(model), *options])
    for name, value in cpu.server_arguments(vars(given)).items():
        setattr(given, name, value)
    given.trust_remote_code = False
    return ServerArgs.from_cli_args(given)


def serve(model: Path, neighbors: Path | None = None, options: Sequence[str] = ()) -> None:
    """Start the server and stay until it is ended.

    model: a Hugging Face folder; neighbors: its table's file, where requests mix neighbors. Raises UserError for a
    folder that is no model, a table that isn't this model's, and settings that the plugin doesn't support.
    """
    model_config(model)
    plugin.install(neighbors, model=model)
    settings = server_settings(model, options)
    from sglang.srt.entrypoints import http_server
    from sglang.srt.utils import kill_process_tree

    os.environ.update(loopback.environment())
    scratch = make_scratch(f"process {os.getpid()}", "[serve] ")
    tempfile.tempdir = str(scratch.temporary)  # sglang's sockets, which take pickles
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # until uvicorn has its own: while the engine starts
    try:
        http_server.launch_server(settings)
    finally:
        kill_process_tree(os.getpid(), include_parent=False)
        scratch.remove()
