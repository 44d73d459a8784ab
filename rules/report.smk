# Tables, notebooks and the report page: computed by ngrpo.report, shown by papermill, gathered in one HTML file.
rule analyze:
    input:
        grades_of,
    output:
        f"{R}/analysis/{{table}}.parquet",
    log:
        f"{R}/logs/analyze/{{table}}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        code=fingerprint("statistics", "claims", "audit", "report", "study", "grading"),
        study=STUDY_OPTIONS,
        cells=cells_of,
    shell:
        "workflow_env ngrpo analyze {wildcards.table} {params.study} --out {output:q} 2>&1 | tee {log:q}"


rule notebook:
    input:
        shown_in_notebook,
        notebook="notebooks/{notebook}.ipynb",
    output:
        f"{R}/report/{{notebook}}.ipynb",
    log:
        f"{R}/logs/notebook/{{notebook}}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        code=fingerprint("statistics", "claims", "audit", "report", "study", "grading"),
        settings=f"-p config {SETTINGS.config} -p scale {SETTINGS.scale} -p results {SETTINGS.results}",
    shell:
        "workflow_env papermill {input.notebook:q} {output:q} {params.settings} --no-progress-bar > {log:q} 2>&1"


rule report:
    input:
        tables=expand(f"{R}/analysis/{{table}}.parquet", table=TABLES),
        extra_seeds=extra_seeds_of,
        notebook=f"{R}/report/results.ipynb",
        diagnostics=diagnostics_files(),
        claims=claims_files,
    output:
        page=report(
            f"{R}/report/index.html",
            caption="captions/page.rst",
            category="The report",
        ),
        figures=report(
            directory(f"{R}/report/figures"),
            patterns=["{figure}.svg"],
            caption="captions/figure.rst",
            category="Figures",
        ),
        claims=f"{R}/report/claims.json",
        compliance=f"{R}/report/compliance.csv",
        tables=expand(
            f"{R}/report/tables/{{table}}.{{kind}}",
            table=TABLES,
            kind=("html", "tex", "csv"),
        ),
    log:
        f"{R}/logs/report.log",
    conda:
        "../envs/workflow.yaml"
    params:
        code=fingerprint("statistics", "claims", "audit", "report", "study", "grading"),
        study=STUDY_OPTIONS,
    shell:
        "workflow_env ngrpo report {params.study} --out {output.page:q} 2>&1 | tee {log:q}"


# The study for others: specs, metrics, grades, tables and report with their provenance; `ngrpo verify` recomputes it.
rule crate:
    input:
        f"{R}/report/index.html",
    output:
        f"{R}/crate.zip",
    log:
        f"{R}/logs/crate.log",
    conda:
        "../envs/workflow.yaml"
    params:
        study=STUDY_OPTIONS,
    shell:
        "workflow_env ngrpo crate {params.study} --out {output:q} 2>&1 | tee {log:q}"
