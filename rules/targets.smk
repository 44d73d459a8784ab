# Named targets: one per table, one per run, and those that a scale names. Tables ask for their grades, too: Snakemake
# takes a file between finished ones for done when it is gone, and a lost evaluation is to be made again.
for _table in STUDY.cells:

    rule:
        name:
            _table
        input:
            f"{R}/analysis/{_table}.parquet",
            grades_for(_table),


for _run in STUDY.runs:

    rule:
        name:
            _run
        input:
            f"{R}/runs/{_run}/model",


# Other names for the same results, such as a figure's or an appendix's (config/scales: targets).
for _target, _names in STUDY.size.targets.items():

    rule:
        name:
            _target
        input:
            [f"{R}/{STUDY.products[name]}" for name in _names],


# Everything that the internet is needed for: run it where there is one (a login node), the rest works offline.
rule fetch:
    input:
        expand(f"{R}/models/{{model}}", model=STUDY.models),
        expand(f"{R}/data/{{dataset}}.parquet", dataset=STUDY.datasets),


# Every notebook, executed on this study; the report itself needs only the first.
rule notebooks:
    input:
        expand(f"{R}/report/{{notebook}}.ipynb", notebook=NOTEBOOKS),
