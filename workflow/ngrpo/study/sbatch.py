"""sbatch's options as a user writes them (`extra` in slurm/site.yaml), and which of them have a key of their own.

The SLURM executor refuses in its free text (`slurm_extra`) what it has a setting for, so those options are told apart
here: one that has a key in slurm/site.yaml is taken for that key; one that the workflow sets itself is refused.
"""

import re
import shlex

from ngrpo.errors import UserError

SITE_FILE = "slurm/site.yaml"
KEYS = ("account", "partition", "qos", "constraint", "reservation", "exclusive")
"""Options that are keys of the same name."""

_SHORT = {
    "A": "account", "p": "partition", "q": "qos", "C": "constraint", "M": "clusters", "t": "time", "G": "gpus",
    "c": "cpus-per-task", "n": "ntasks", "N": "nodes", "J": "job-name", "o": "output", "e": "error", "i": "input",
    "D": "chdir", "w": "nodelist", "x": "exclude", "L": "licenses", "d": "dependency", "b": "begin", "a": "array",
    "F": "nodefile", "S": "core-spec", "m": "distribution", "B": "extra-node-info", "k": "no-kill",
    "s": "oversubscribe", "O": "overcommit", "H": "hold", "Q": "quiet", "v": "verbose", "W": "wait",
}  # fmt: skip
_WITHOUT_VALUE = {
    "exclusive", "no-kill", "oversubscribe", "overcommit", "hold", "quiet", "verbose", "wait", "contiguous",
    "spread-job", "use-min-nodes", "ignore-pbs", "get-user-env", "requeue", "no-requeue",
    "parsable", "test-only", "reboot",
    "help", "usage", "version",
}  # fmt: skip

_WITH_VALUE = {*_SHORT.values(), *KEYS, "gres", "mail-type", "mail-user", "tmp", "hint", "switches"} - _WITHOUT_VALUE
_FOR_A_SHELL, _CONTROL = re.compile(r"[\x00-\x20'\"`$;<>\\]"), re.compile(r"[\x00-\x1f]")
"""In names that the executor puts into its command by quotes of its own, and in all values."""
_OPTION = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")

_MEMORY = "set cluster.cpu.memory_gb and cluster.gpu.memory_gb (how they are asked for: cluster.memory)"
_CPUS = "set cluster.cpu.cpus and cluster.gpu.cpus"
_GPUS = "set cluster.gpu.per_node and cluster.gpu.type (how they are asked for: cluster.gpu.request)"
_OURS = "leave it out: the workflow and Snakemake set it for every job"
_INSTEAD = {
    "time": "set cluster.walltime",
    "nodes": "set cluster.nodes",
    "clusters": "run Snakemake on that cluster's login node, or `export SLURM_CLUSTERS=…` before it",
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), _MEMORY),
    **dict.fromkeys(("cpus-per-task", "cpus-per-gpu"), _CPUS),
    **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task"), _GPUS),
    **dict.fromkeys(("ntasks", "ntasks-per-gpu", "ntasks-per-node", "ntasks-per-core", "ntasks-per-socket"), _OURS),
    **dict.fromkeys(("job-name", "output", "error", "input", "comment", "chdir", "workdir", "export", "wrap"), _OURS),
    **dict.fromkeys(("parsable", "array", "signal", "requeue", "no-requeue", "wait", "test-only", "hold"), _OURS),
    **dict.fromkeys(("help", "usage", "version", "quiet", "verbose"), _OURS),
}

Options = dict[str, str | None]
"""Long names without dashes → value, None where there is none."""


def sbatch_options(text: str, where: str) -> Options:
    """The options of a text such as `--exclude=n1 -x n2`, by their long names; of one given twice the last counts.

    where: the key that holds the text. Raises UserError where it isn't options, and for those that are set otherwise.
    """
    try:
        words = shlex.split(text)
    except ValueError as e:
        raise UserError(f"not readable as sbatch options: {e}: {text}", where=where) from None
    options: Options = {}
    while words:
        name, value = _option(words, text, where)
        if name in _INSTEAD:
            raise UserError(f"the sbatch option --{name} can't be given here", where=where, do=_INSTEAD[name])
        options[name] = value
    gres = options.get("gres") or ""
    if any(part.split(":")[0] == "gpu" for part in gres.split(",")):
        raise UserError(f"GPUs can't be asked for here: --gres={gres}", where=where, do=_GPUS)
    return options


def _option(words: list[str], text: str, where: str) -> tuple[str, str | None]:
    """Take one option, and its value where it has one, from the front of the words."""
    word = words.pop(0)
    if word.startswith("--") and len(word) > 2:
        name, equals, value = word[2:].partition("=")
        given = value if equals else None
    elif word.startswith("-") and word[1:2] in _SHORT:
        name, given = _SHORT[word[1]], word[2:].removeprefix("=") or None
    else:
        raise _no_option(word, text, where)
    if given is None and name not in _WITHOUT_VALUE and words and not words[0].startswith("-"):
        given = words.pop(0)
    unsafe = _FOR_A_SHELL if name in KEYS else _CONTROL
    if not _OPTION.fullmatch(name) or unsafe.search(given or ""):
        raise _no_option(word, text, where)
    if not given and name in _WITH_VALUE:
        raise UserError(f"the sbatch option --{name} needs a value", where=where, do=f"write --{name}=VALUE")
    return name, given


def _no_option(word: str, text: str, where: str) -> UserError:
    return UserError(
        f"'{word}' is no sbatch option: {text}", where=where, do="write options as sbatch takes them: --name=value"
    )


def as_text(options: Options) -> str:
    """The options for a shell, each as one word."""
    return shlex.join(f"--{name}" if value is None else f"--{name}={value}" for name, value in options.items())
