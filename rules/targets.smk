# Named targets: every model, neighbor table, run, table and diagnostics. Tables ask for their grades, too: Snakemake
# takes a file between finished ones for done when it is gone, and a lost evaluation is to be made again.
for _name, _path in STUDY.products.items():

    rule:
        name:
            _name
        input:
            RESULTS.root / _path,
            grades_for(*{_name} & STUDY.cells.keys()),
            extra_seeds_for(*{_name} & STUDY.cells.keys()),


# Other names for the same results, such as a figure's or an appendix's (config/scales: targets).
for _target, _names in STUDY.size.targets.items():

    rule:
        name:
            _target
        input:
            [RESULTS.root / STUDY.products[name] for name in _names],


# What the verdict on one claim of config/claims.yaml needs, with every training seed, and nothing else.
for _claim in CLAIMS:

    rule:
        name:
            f"{TARGET}{_claim}"
        input:
            evidence_on(_claim),


# Everything that the internet is needed for: run it where there is one (a login node), the rest works offline.
rule fetch:
    input:
        [RESULTS.model(model).folder for model in STUDY.models],
        [RESULTS.dataset(dataset).problems for dataset in STUDY.datasets],


# Every notebook, executed on this study; the report itself needs only the first.
rule notebooks:
    input:
        [RESULTS.report.notebook(notebook) for notebook in NOTEBOOKS],
