# Neighbor tables: every token's k nearest in the base model's embedding (Eq. 7-8).
rule neighbors:
    input:
        spec=spec_of(HERE.neighbors("{table_id}").spec),
        model=neighbor_model,
    output:
        RESULTS.neighbors("{table_id}").table,
    log:
        RESULTS.log("neighbors", "{table_id}"),
    conda:
        "../envs/train.yaml"
    threads: SETTINGS.threads("neighbors")
    resources:
        **SETTINGS.needs("neighbors"),
    params:
        version=VERSIONS["neighbors"],
    shell:
        "train_env ngrpo neighbors {input.spec:q} --model {input.model:q} --out {output:q} 2>&1 | tee {log:q}"
