"""A crate judged by roc-validator without the internet: `python envs/validate_crate.py CRATE` (`make validate-crate`).

The validator fetches each JSON-LD context that a crate names, through a cache. Here that cache is filled with the one
that the package rocrate ships, under the address it gives as its own, and the validator is told to ask nobody else.
"""

import io
import json
import subprocess
import sys
import tempfile
import zipfile
from importlib.resources import files
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from requests_cache import CachedSession
from urllib3 import HTTPResponse

METADATA = "ro-crate-metadata.json"
VALIDATOR = Path(sys.executable).with_name("rocrate-validator")


def contexts_of(crate: Path) -> list[str]:
    """The addresses of the contexts that a crate, a folder or .zip, names; exits where it is no crate."""
    try:
        text = zipfile.Path(crate, METADATA).read_text("utf-8") if crate.is_file() else (crate / METADATA).read_text()
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        sys.exit(f"{crate} is no crate: {METADATA} can't be read from it ({error})")
    named = json.loads(text)["@context"]
    return [one for one in (named if isinstance(named, list) else [named]) if isinstance(one, str)]


def bundled() -> dict[str, str]:
    """Address → text of the context in rocrate's package data."""
    text = files("rocrate.data").joinpath("ro-crate.jsonld").read_text("utf-8")
    return {json.loads(text)["@id"]: text}


class Bundled(HTTPAdapter):
    """Answers requests with contexts (address → text) instead of asking the network."""

    def __init__(self, contexts: dict[str, str]):
        super().__init__()
        self.contexts = contexts

    def send(self, request, **_) -> requests.Response:
        body = io.BytesIO(self.contexts[request.url].encode())
        kind = {"Content-Type": "application/ld+json; charset=utf-8"}
        return self.build_response(request, HTTPResponse(body, kind, status=200, preload_content=False))


def fill(cache: Path, contexts: dict[str, str]) -> None:
    """Write contexts into a cache as the answers to fetching them."""
    with CachedSession(str(cache), backend="sqlite", expire_after=-1) as session:
        session.mount("https://", Bundled(contexts))
        for address in contexts:
            session.get(address).raise_for_status()


def main(crate: Path) -> int:
    """Judge a crate by the profile workflow-run-crate; returns the validator's exit code, 0 if all required holds."""
    known = bundled()
    if missing := [address for address in contexts_of(crate) if address not in known]:
        sys.exit(f"not validated: no installed package has {', '.join(missing)} (rocrate has {', '.join(known)})")
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder) / "http", known)
        options = ["--offline", "--cache-path", Path(folder) / "http", "-p", "workflow-run-crate", "-l", "required"]
        return subprocess.run(
            [VALIDATOR, "-y", "validate", *options, "--no-paging", "-v", crate], check=False
        ).returncode


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("name the crate, a folder or .zip: validate_crate.py CRATE")
    sys.exit(main(Path(sys.argv[1])))
