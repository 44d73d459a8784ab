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
            f"{needs.TARGET}{_claim}"
        input:
            evidence_on(_claim),


# One look at a claim with so many training seeds: what it says decides whether more are trained.
checkpoint decide:
    input:
        evidence_at,
    output:
        RESULTS.decision("{claim}", "{seeds}"),
    log:
        RESULTS.log("decide", "{claim}.{seeds}"),
    wildcard_constraints:
        claim=one_of(CLAIMS),
        seeds=r"\d+",
    localrule: True
    conda:
        "../envs/workflow.yaml"
    resources:
        most=MOST_SEEDS,  # no parameter: another number changes no look
    params:
        code=code_of("report"),
    shell:
        "with_study workflow_env ngrpo decide {wildcards.claim:q} {resources.most} --out {output:q} 2>&1 | tee {log:q}"


# Training seeds are added until a claim is decided, or until there are as many as are allowed; the last line says which.
for _claim in CLAIMS:

    rule:
        name:
            f"{DECIDE}{_claim}"
        input:
            last_look(_claim),
        log:
            RESULTS.log("decide", _claim),
        localrule: True
        conda:
            "../envs/workflow.yaml"
        params:
            claim=_claim,
            most=MOST_SEEDS,
        shell:
            "with_study workflow_env ngrpo decide {params.claim:q} {params.most} 2>&1 | tee {log:q}"


# Everything that the internet is needed for: run it where there is one (a login node), the rest works offline.
rule fetch:
    input:
        [RESULTS.model(model).folder for model in STUDY.models],
        [RESULTS.policy(policy).folder for policy in STUDY.policies],
        [RESULTS.dataset(dataset).problems for dataset in STUDY.datasets],


# Every notebook, executed on this study; the report itself needs only the first.
rule notebooks:
    input:
        [RESULTS.report.notebook(notebook) for notebook in NOTEBOOKS],
