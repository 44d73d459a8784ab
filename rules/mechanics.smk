# What mixing does to a trajectory and where its inputs lie (the paper's Figure 1), on the base model.
rule mechanics:
    input:
        unpack(mechanics_inputs),
        spec=f"{R}/runs/{{run}}/spec.json",
    output:
        f"{R}/mechanics/{{run}}.json",
    log:
        f"{R}/logs/mechanics/{{run}}.log",
    conda:
        "../envs/train.yaml"
    resources:
        **SETTINGS.needs("mechanics"),
    params:
        version=VERSIONS["mechanics"],
    shell:
        "train_env ngrpo mechanics {input.spec:q} --model {input.model:q} --neighbours {input.neighbours:q}"
        " --problems {input.problems:q} --out {output:q} 2>&1 | tee {log:q}"
