# Named targets: one per table and one per run.
for _table in STUDY.cells:

    rule:
        name:
            _table
        input:
            f"{R}/analysis/{_table}.parquet",


for _run in STUDY.runs:

    rule:
        name:
            _run
        input:
            f"{R}/runs/{_run}/model",
