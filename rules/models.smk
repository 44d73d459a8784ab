# Base models, as Hugging Face folders: fetched, unpacked, copied or (toy) pre-trained.
rule model:
    input:
        spec=f"{R}/models/{{model}}.spec.json",
    output:
        directory(f"{R}/models/{{model}}"),
    log:
        f"{R}/logs/model/{{model}}.log",
    conda:
        "../envs/train.yaml"
    params:
        version=VERSIONS["model"],
    shell:
        "train_env ngrpo model {input.spec:q} --out {output:q} 2>&1 | tee {log:q}"
