# What tables, claims and the page are made from.


def diagnostics_files():
    """What mixing does on each base model of the report's tables."""
    models = {c.model for t in TABLES for c in STUDY.cells[t]}
    runs = [r for r in STUDY.mixing_runs if STUDY.runs[r].model.id in models]
    return [RESULTS.diagnostics(run) for run in runs]


def shown_in_notebook(wildcards):
    """The files that a notebook shows."""
    if wildcards.notebook == "diagnostics":
        return diagnostics_files()
    return [RESULTS.table(table) for table in TABLES]


def grades_for(*tables):
    """The grades that tables' cells need."""
    wanted = sorted({c.evaluation for t in tables for c in STUDY.cells[t]})
    return [RESULTS.evaluation(e).grades for e in wanted]


def grades_of(wildcards):
    """The grades that a table is computed from: its differences are over all training seeds."""
    return [*grades_for(wildcards.table), *extra_grades_for(wildcards.table)]


def evidence_on(claim):
    """The input function of a claim's target: what its verdict needs."""

    def files(wildcards):
        try:
            files = needs.claim_files(claim, STUDY, most=SETTINGS.max_seeds)
            return [RESULTS.root / path for path in files]
        except UserError as e:
            raise WorkflowError(str(e)) from None

    return files


def evidence_at(wildcards):
    """What a claim's verdict needs with so many training seeds."""
    number = int(wildcards.seeds)
    try:
        return [
            RESULTS.root / path
            for path in needs.claim_files(wildcards.claim, STUDY, number=number)
        ]
    except UserError as e:
        raise WorkflowError(str(e)) from None


def last_look(claim):
    """The input function of the target that decides a claim: its looks, one after the other, until it is over."""

    def decisions(wildcards):
        # it brings numpy and scipy, and every job reads this file
        from ngrpo.planning.sequential import planned_looks

        try:
            numbers = planned_looks(
                claim, STARTED_WITH.asked, RESULTS, SETTINGS.max_seeds
            )
        except UserError as e:
            raise WorkflowError(str(e)) from None
        looks = []
        for number in numbers:
            look = checkpoints.decide.get(claim=claim, seeds=str(number)).output[0]
            looks.append(look)
            if read_json(look)["over"]:
                break
        return looks

    return decisions


# The greatest number of training seeds, as an option of `ngrpo decide`.
MOST_SEEDS = f"--max-seeds {SETTINGS.max_seeds}" if SETTINGS.max_seeds else ""


def extra_grades_for(*tables):
    """The grades of tables' trained policies with their further training seeds."""
    wanted = sorted({c.evaluation for t in tables for c in STUDY.cells[t]})
    most = SETTINGS.max_seeds
    grades = [
        e for e in wanted for e in STUDY.extra_seeds.get(e, [])[: most and most - 1]
    ]
    return [RESULTS.evaluation(e).grades for e in grades]


def extra_seeds_for(*tables):
    """What tables' trained policies leave with their further training seeds: grades, and runs asked for their logs."""
    wanted = sorted({c.evaluation for t in tables for c in STUDY.cells[t]})
    trained = dict.fromkeys(
        STUDY.evaluations[e].policy.id for e in wanted if e in STUDY.measured
    )
    most = SETTINGS.max_seeds
    runs = [
        r for r in trained for r in STUDY.extra_runs.get(r, [])[: most and most - 1]
    ]
    return [*extra_grades_for(*tables), *(RESULTS.run(r).model for r in runs)]


def extra_seeds_of(wildcards):
    """The same, of all tables that are asked for."""
    return extra_seeds_for(*TABLES)


def shown_in_table(wildcards):
    """What a table shows of the configuration: another label or k makes it anew."""
    return table_digest(STARTED_WITH.asked, wildcards.table)


def shown_on_page(wildcards):
    """What the report or a notebook shows of the configuration, titles included."""
    return page_digest(STARTED_WITH.asked)


def finished_besides(wildcards):
    """The content of what the page shows and nobody asked for today: finished tables, diagnostics, grades, how runs
    ended. It has no argument `input`, because Snakemake sees no change of parameters that have.
    """
    waited_for = {*extra_seeds_of(wildcards), *diagnostics_files()}
    of_tables = (RESULTS.table, RESULTS.exploration, RESULTS.excerpts)
    waited_for |= {made(table) for made in of_tables for table in TABLES}
    asked = {c.evaluation for table in TABLES for c in STUDY.cells[table]}
    grades = {e: RESULTS.evaluation(e).grades for e in STUDY.evaluations}
    asked |= {e for e, path in grades.items() if path in waited_for}
    trained = {STUDY.evaluations[e].policy.id for e in asked}
    shown = [
        *(made(table) for made in of_tables for table in STUDY.cells),
        *map(RESULTS.diagnostics, STUDY.mixing_runs),
        *(path for e, path in grades.items() if e not in asked),
        *(
            RESULTS.run(run).model_card
            for run in STUDY.runs
            if run not in trained and RESULTS.run(run).model not in waited_for
        ),
    ]
    others = [path for path in shown if path not in waited_for and path.is_file()]
    return digest({str(path): file_sha256(path) for path in others})
