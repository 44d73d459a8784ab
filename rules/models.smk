# Base models, as Hugging Face folders: fetched, unpacked, copied or (toy) pre-trained.
rule model:
    input:
        spec=spec_of(HERE.model("{model}").spec),
    output:
        directory(RESULTS.model("{model}").folder),
    log:
        RESULTS.log("model", "{model}"),
    conda:
        "../envs/train.yaml"
    params:
        version=model_version,
    shell:
        "train_env ngrpo model {input.spec:q} --out {output:q} 2>&1 | tee {log:q}"
