# Neighbor tables: every token's k nearest in the base model's embedding (Eq. 7-8).
rule neighbors:
    input:
        spec=f"{R}/neighbors/{{table_id}}.spec.json",
        model=neighbor_model,
    output:
        f"{R}/neighbors/{{table_id}}.safetensors",
    log:
        f"{R}/logs/neighbors/{{table_id}}.log",
    conda:
        "../envs/train.yaml"
    resources:
        **SETTINGS.needs("neighbors"),
    params:
        version=VERSIONS["neighbors"],
    shell:
        "train_env ngrpo neighbors {input.spec:q} --model {input.model:q} --out {output:q} 2>&1 | tee {log:q}"
