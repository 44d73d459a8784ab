"""`ngrpo`: every stage as a subcommand that runs without Snakemake. Rules call these, one command each.

A user's mistake ends in one message (what, where, what to do) and exit code 1; `--traceback` shows where it was raised.
Stages are imported when they run: `ngrpo plan` on a login node loads no torch.
"""

from ngrpo.cli import graded, inputs, planning, results, runs
from ngrpo.cli.group import main

__all__ = ["main"]

for _command in (
    *(inputs.dataset, inputs.model, inputs.policy, inputs.predictions, inputs.training_data, inputs.neighbors),
    *(runs.train, runs.watch, runs.sample, runs.diagnostics, runs.serve),
    *(results.analyze, results.report, results.import_curves, results.crate, results.verify, results.table),
    *(graded.grade, graded.show, graded.diff, graded.evaluate),
    *(
        planning.doctor,
        planning.plan,
        planning.power,
        planning.claim,
        planning.decide,
        planning.ledger,
        planning.clean,
        planning.audit_paper,
        planning.schema,
    ),
):
    main.add_command(_command)
