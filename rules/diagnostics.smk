# What mixing does to a trajectory and where its inputs lie (the paper's Figure 1), on the base model.
rule diagnostics:
    input:
        unpack(diagnostics_inputs),
        spec=spec_of(HERE.run("{run}").spec),
    output:
        RESULTS.diagnostics("{run}"),
    log:
        RESULTS.log("diagnostics", "{run}"),
    conda:
        "../envs/train.yaml"
    threads: SETTINGS.threads("diagnostics")
    resources:
        **SETTINGS.needs("diagnostics"),
    params:
        version=VERSIONS["diagnostics"],
    shell:
        "train_env ngrpo diagnostics {input.spec:q} --model {input.model:q} --neighbors {input.neighbors:q}"
        " --problems {input.problems:q} --out {output:q} 2>&1 | tee {log:q}"
