# Tables, notebooks and the report page: computed by ngrpo.report, shown by papermill, gathered in one HTML file.


rule analyze:
    input:
        grades_of,
    output:
        table=RESULTS.table("{table}"),
        exploration=RESULTS.exploration("{table}"),
        excerpts=RESULTS.excerpts("{table}"),
    log:
        RESULTS.log("analyze", "{table}"),
    conda:
        "../envs/workflow.yaml"
    params:
        code=code_of("analyze"),
        shown=shown_in_table,
    shell:
        "with_study workflow_env ngrpo analyze {wildcards.table:q} --out {output.table:q}"
        " --exploration {output.exploration:q} --excerpts {output.excerpts:q} 2>&1 | tee {log:q}"


rule notebook:
    input:
        shown_in_notebook,
        notebook="notebooks/{notebook}.ipynb",
    output:
        RESULTS.report.notebook("{notebook}"),
    log:
        RESULTS.log("notebook", "{notebook}"),
    conda:
        "../envs/workflow.yaml"
    params:
        code=code_of("notebook"),
        shown=shown_on_page,
    shell:
        "with_parameters workflow_env papermill {input.notebook:q} {output:q} --no-progress-bar > {log:q} 2>&1"


rule report:
    input:
        tables=[RESULTS.table(table) for table in TABLES],
        exploration=[RESULTS.exploration(table) for table in TABLES],
        excerpts=[RESULTS.excerpts(table) for table in TABLES],
        extra_seeds=extra_seeds_of,
        notebook=RESULTS.report.notebook("results"),
        diagnostics=diagnostics_files(),
        imported=imported_files(RESULTS),
    output:
        page=report(
            RESULTS.report.page,
            caption="captions/page.rst",
            category="The report",
        ),
        figures=report(
            directory(RESULTS.report.figures),
            patterns=["{figure}.svg"],
            caption="captions/figure.rst",
            category="Figures",
        ),
        problems=directory(RESULTS.report.problems),
        claims=RESULTS.report.claims,
        compliance=RESULTS.report.compliance,
        tables=expand(
            RESULTS.report.table("{table}", "{kind}"),
            table=TABLES,
            kind=("html", "tex", "csv"),
        ),
    log:
        RESULTS.log("report"),
    conda:
        "../envs/workflow.yaml"
    params:
        code=code_of("report"),
        shown=shown_on_page,
        besides=finished_besides,
    shell:
        "with_study workflow_env ngrpo report --out {output.page:q} 2>&1 | tee {log:q}"


# The study for others: specs, metrics, grades, tables and report with their provenance; `ngrpo verify` recomputes it.
rule crate:
    input:
        RESULTS.report.page,
    output:
        RESULTS.crate,
    log:
        RESULTS.log("crate"),
    conda:
        "../envs/workflow.yaml"
    shell:
        "with_study workflow_env ngrpo crate --out {output:q} 2>&1 | tee {log:q}"
