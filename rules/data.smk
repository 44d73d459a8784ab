# Problems: fetched or made, then filtered for training.
rule dataset:
    input:
        spec=f"{R}/data/{{dataset}}.spec.json",
        source=data_file_in_folder,
    output:
        problems=f"{R}/data/{{dataset}}.parquet",
        card=f"{R}/data/{{dataset}}.card.json",
    log:
        f"{R}/logs/dataset/{{dataset}}.log",
    conda:
        "../envs/train.yaml"
    params:
        code=fingerprint("data", "grading"),
        folder=DATA_FOLDER,
    shell:
        "train_env ngrpo dataset {input.spec:q} {params.folder} --out {output.problems:q} 2>&1 | tee {log:q}"


rule training_data:
    input:
        spec=f"{R}/data/{{dataset}}.{{model}}.spec.json",
        problems=f"{R}/data/{{dataset}}.parquet",
        benchmarks=kept_out,
        model=f"{R}/models/{{model}}",
    output:
        problems=f"{R}/data/{{dataset}}.{{model}}.parquet",
        card=f"{R}/data/{{dataset}}.{{model}}.card.json",
    log:
        f"{R}/logs/training_data/{{dataset}}.{{model}}.log",
    conda:
        "../envs/train.yaml"
    resources:
        **SETTINGS.needs("training-data"),
    params:
        code=fingerprint("data", "grading"),
        benchmarks=benchmark_options,
    shell:
        "train_env ngrpo training-data {input.spec:q} --problems {input.problems:q} {params.benchmarks}"
        " --model {input.model:q} --out {output.problems:q} 2>&1 | tee {log:q}"
