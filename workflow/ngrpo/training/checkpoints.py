"""Checkpoints that are whole or not used, and the best policy so far.

```
runs/{run}/checkpoints/checkpoint.json     whose spec; the last two whole checkpoints; written last, at once
runs/{run}/checkpoints/inputs.json         what identifies the content of its base model, data and validation problems
runs/{run}/checkpoints/global_step_{n}/    verl's own files: weights, optimizer, schedule, random state
runs/{run}/checkpoints/best_{n}/           a Hugging Face folder: the policy with the best validation score
```

When a run is finished and its policy exported, verl's files go and best_{n} becomes links to the exported files.

checkpoint.json is the one point of commitment: what it doesn't name was never there for a resumed run, and is deleted.
So a kill at any moment leaves the last checkpoint together with the best policy as of that checkpoint. Of each
checkpoint it says step, best policy, and every file's size: one that was cut short afterwards (a full disk, a broken
copy) is seen, and the one before it is used.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ngrpo.errors import UserError
from ngrpo.files import read_json, whole_file, write_json
from ngrpo.study.layout import RunFiles
from ngrpo.terminal import echo


class Checkpoints:
    """One run's checkpoints, as the trainer sees them: the committed ones, and the best policy since."""

    def __init__(self, run: RunFiles, spec: str):
        self.run, self.spec, self.folder = run, spec, run.checkpoints
        self._card, self._inputs = self.folder / "checkpoint.json", self.folder / "inputs.json"
        self.committed: list[dict] = []
        """The last one or two checkpoints, newest first: step, best, files (path → bytes)."""
        self.best: dict | None = None
        card = read_json(self._card) if self._card.exists() else None
        self.ended: str | None = None
        """Why the run ended before its last step, at its last committed checkpoint; None: it didn't."""
        if card is not None and card["spec"] == spec:
            last = {"step": card["step"], "best": card["best"], "files": card.get("files", {})}
            if card.get("finished"):
                last["finished"] = True
            self.ended = card.get("ended")
            self.committed = [last, card["before"]] if card.get("before") else [last]
            self.best = last["best"]

    @property
    def step(self) -> int:
        """The last committed step, or 0."""
        return self.committed[0]["step"] if self.committed else 0

    def best_model(self, step: int) -> Path:
        """Where the policy of a step lies, or will lie, if it is the best."""
        return self.folder / f"best_{step}"

    def prepare(self, inputs: Mapping[str, str] | None = None) -> int:
        """Leave nothing but whole checkpoints, in a form that verl resumes from, and the log up to the last one;
        returns that one's step, or 0.

        inputs: what identifies the content of what the run is trained on and from; a spec names only where they come
        from. A checkpoint of another spec, or of other inputs, is moved aside with all that its run left, so that
        nothing is lost or mixed. Raises UserError where there are checkpoints and none is whole.
        """
        if self._card.exists():
            card, before = read_json(self._card), read_json(self._inputs) if self._inputs.exists() else None
            if card["spec"] != self.spec:
                self._set_aside(card, "another spec's run")
            elif inputs is not None and before is not None and before != inputs:
                changed = [name for name in inputs if inputs[name] != before.get(name)]
                self._set_aside(card, f"a run with another {' and '.join(changed)}")
        self.folder.mkdir(parents=True, exist_ok=True)
        if inputs is not None:
            write_json(self._inputs, dict(inputs))
        self._drop_broken()
        marker = self.folder / "latest_checkpointed_iteration.txt"
        if self.step:
            marker.write_text(str(self.step))
        else:
            marker.unlink(missing_ok=True)
        self._prune()
        cut_metrics(self.run.metrics, self.step)
        return self.step

    def commit(self, step: int, ended: str | None = None) -> None:
        """Declare step's files whole, together with the best policy so far; the checkpoint before stays, too.

        ended: why the run ends with this step, before its last one.
        """
        self.ended = ended
        folders = [self.folder / f"global_step_{step}"]
        if self.best:
            folders.append(self.best_model(self.best["step"]))
        files = {}
        for path in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            files[str(path.relative_to(self.folder))] = path.stat().st_size
        self._write([{"step": step, "best": self.best, "files": files}, *self.committed[:1]])
        self._prune()

    def finish(self, policy: Path) -> None:
        """The run is done: let its checkpoints go. What stays is the best policy, as links to the exported one.

        So the run isn't trained again where the export is lost, and that costs no room. policy: the exported folder.
        Raises UserError, and removes nothing, where it isn't the best policy, file by file.
        """
        best = self.best_model(self.best["step"]) if self.best else None
        if best is None or not best.is_dir():
            raise UserError("the run has no best policy", where=self.folder)
        files = {str(path.relative_to(self.folder)): _size(path) for path in sorted(best.iterdir())}
        for name, size in files.items():
            exported = policy / Path(name).name
            if _size(exported) != size:
                raise UserError(
                    f"the exported policy isn't whole: {exported.name} has {_size(exported)} of {size} bytes",
                    where=policy,
                    do="make room if the disk is full; running the same command again exports it anew",
                )
            _link(exported, self.folder / name)
        self._write([{"step": self.step, "best": self.best, "files": files, "finished": True}])
        self._prune()

    def reject(self, step: int) -> None:
        """Forget the checkpoint of a step whose weights turn out to be no good; the one before it stays."""
        others = [one for one in self.committed if one["step"] != step]
        if len(others) == len(self.committed):
            return
        self.best = others[0]["best"] if others else None
        if others:
            self._write(others)
        else:
            self._card.unlink()
            self.committed = []

    def is_better(self, score: float, ties: str = "earlier") -> bool:
        """Whether this score is the best so far; ties: the step that an equal score goes to, "earlier" or "later"."""
        return self.best is None or score > self.best["score"] or (ties == "later" and score == self.best["score"])

    def declare_best(self, score: float, step: int) -> None:
        """Note that best_model(step) holds the best policy; the next commit makes it last."""
        self.best = {"step": step, "score": score}

    def _write(self, checkpoints: list[dict]) -> None:
        before = checkpoints[1] if len(checkpoints) > 1 else None
        ended = {"ended": self.ended} if self.ended else {}
        write_json(self._card, {"spec": self.spec, **checkpoints[0], **ended, "before": before})
        self.committed = checkpoints

    def _drop_broken(self) -> None:
        """Forget checkpoints with a file that is missing or of another size."""
        whole = []
        for one in self.committed:
            broken = [name for name, size in one["files"].items() if _size(self.folder / name) != size]
            if broken:
                echo(
                    f"[train] the checkpoint of step {one['step']} is not whole and not used: {broken[0]} has "
                    f"{_size(self.folder / broken[0])} of {one['files'][broken[0]]} bytes",
                )
            else:
                whole.append(one)
        if self.committed and not whole:
            raise UserError(
                f"no checkpoint of this run is whole; the last was made at step {self.step}",
                where=self.folder,
                do="put the files back, or move this folder and metrics.jsonl away: the run then starts at step 1",
            )
        if len(whole) < len(self.committed):
            self.ended = self.ended if whole[0] is self.committed[0] else None
            self._write(whole)
            self.best = whole[0]["best"]

    def _prune(self) -> None:
        """Delete every folder that no committed checkpoint names."""
        named = {f"global_step_{one['step']}" for one in self.committed if not one.get("finished")}
        named |= {f"best_{one['best']['step']}" for one in self.committed if one["best"]}
        for pattern in ("global_step_*", "best_*", ".best_*"):
            for old in self.folder.glob(pattern):
                if old.name not in named:
                    shutil.rmtree(old)

    def _set_aside(self, card: dict, whose: str) -> None:
        """Move another run to superseded/ in the run folder."""
        aside = self.run.folder / "superseded" / card["spec"]
        number = 1
        while aside.exists():
            number += 1
            aside = aside.with_name(f"{card['spec']}.{number}")
        aside.mkdir(parents=True)
        # the checkpoints with their card last: a kill on the way is mended
        files = (
            self.run.metrics,
            self.run.verl_settings,
            self.run.train_log,
            self.run.failure,
            self.run.tensorboard,
        )
        for path in (*files, self.folder):
            if path.exists():
                os.replace(path, aside / path.name)
        self.committed, self.best = [], None
        echo(f"[train] this folder held {whose} (at step {card['step']}): moved to {aside}")


def _link(there: Path, path: Path) -> None:
    """Put a hard link to an equal file in a file's place, where the file system has them; else it stays as it is."""
    if path.samefile(there):
        return
    new = path.with_name(f".{path.name}.link")
    new.unlink(missing_ok=True)
    try:
        os.link(there, new)
    except OSError:
        return
    os.replace(new, path)


def _size(path: Path) -> int:
    """A file's bytes; 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def cut_metrics(path: Path, step: int) -> None:
    """Drop a run's logged steps after its last checkpoint, and a half-written line: resumed, it writes them again."""
    if not path.exists():
        return
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if row["step"] > step:
            break
        lines.append(line + "\n")
    with whole_file(path) as part:
        part.write_text("".join(lines), encoding="utf-8")
