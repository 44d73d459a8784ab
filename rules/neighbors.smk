# Neighbour tables: every token's k nearest in the base model's embedding (Eq. 7-8).
rule neighbours:
    input:
        spec=f"{R}/neighbors/{{table_id}}.spec.json",
        model=neighbour_model,
    output:
        f"{R}/neighbors/{{table_id}}.safetensors",
    log:
        f"{R}/logs/neighbours/{{table_id}}.log",
    conda:
        "../envs/train.yaml"
    resources:
        **SETTINGS.needs("neighbours"),
    params:
        version=VERSIONS["neighbours"],
    shell:
        "train_env ngrpo neighbours {input.spec:q} --model {input.model:q} --out {output:q} 2>&1 | tee {log:q}"
