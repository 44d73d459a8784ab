# Policies that were trained elsewhere, and samples that were drawn elsewhere (ngrpo.study.elsewhere).


# Fetched or copied, checked against their base model; an adapter is merged with it.
rule policy:
    input:
        spec=spec_of(HERE.policy("{policy}").spec),
        base=base_of_policy,
    output:
        directory(RESULTS.policy("{policy}").folder),
    log:
        RESULTS.log("policy", "{policy}"),
    conda:
        "../envs/train.yaml"
    resources:
        source=source_option("{policy}"),
    params:
        version=VERSIONS["policy"],
    shell:
        "train_env ngrpo policy {input.spec:q} --base {input.base:q} {resources.source} --out {output:q}"
        " 2>&1 | tee {log:q}"


# Samples as those that are drawn here lie: a row a sample.
rule predictions:
    input:
        spec=spec_of(HERE.evaluation("{evaluation}").spec),
        problems=problems_of,
    output:
        samples=RESULTS.evaluation("{evaluation}").samples,
        card=RESULTS.evaluation("{evaluation}").samples_card,
    log:
        RESULTS.log("predictions", "{evaluation}"),
    wildcard_constraints:
        evaluation=one_of(e for e, s in STUDY.evaluations.items() if s.base is None),
    conda:
        "../envs/workflow.yaml"
    resources:
        source=source_option("{evaluation}"),
    params:
        version=VERSIONS["predictions"],
    shell:
        "workflow_env ngrpo predictions {input.spec:q} --problems {input.problems:q} {resources.source}"
        " --out {output.samples:q} 2>&1 | tee {log:q}"
