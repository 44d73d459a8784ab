# Evaluations: n samples a problem in resumable shards, then grades.
rule sample:
    input:
        unpack(sample_inputs),
        spec=f"{R}/evaluations/{{evaluation}}.spec.json",
    output:
        samples=f"{R}/evaluations/{{evaluation}}.samples.parquet",
        card=f"{R}/evaluations/{{evaluation}}.samples.card.json",
    log:
        f"{R}/logs/sample/{{evaluation}}.log",
    conda:
        "../envs/train.yaml"
    threads: STUDY.size.threads
    resources:
        **SETTINGS.needs("sample"),
    params:
        version=VERSIONS["sample"],
        neighbours=neighbour_option,
    shell:
        "train_env ngrpo sample {input.spec:q} --model {input.model:q} --problems {input.problems:q}"
        " {params.neighbours} --out {output.samples:q} 2>&1 | tee {log:q}"


rule grade:
    input:
        samples=f"{R}/evaluations/{{evaluation}}.samples.parquet",
        problems=problems_of,
    output:
        f"{R}/evaluations/{{evaluation}}.grades.parquet",
    log:
        f"{R}/logs/grade/{{evaluation}}.log",
    conda:
        "../envs/workflow.yaml"
    threads: 2
    resources:
        **SETTINGS.needs("grade"),
    params:
        code=fingerprint("grading"),
    shell:
        "workflow_env ngrpo grade {input.samples:q} --problems {input.problems:q} --workers {threads} --out {output:q}"
        " 2>&1 | tee {log:q}"
