# Problems: fetched or made, then filtered for training.
rule dataset:
    input:
        spec=spec_of(HERE.dataset("{dataset}").spec),
    output:
        problems=RESULTS.dataset("{dataset}").problems,
        card=RESULTS.dataset("{dataset}").card,
    log:
        RESULTS.log("dataset", "{dataset}"),
    conda:
        "../envs/train.yaml"
    resources:
        archive=archive_options,
    params:
        code=code_of("dataset"),
        asked=asked_option,
        source=content_of_source,
    shell:
        "with_data_folder train_env ngrpo dataset {input.spec:q} {params.asked} {resources.archive}"
        " --out {output.problems:q} 2>&1 | tee {log:q}"


rule training_data:
    input:
        spec=spec_of(HERE.training_data("{dataset}", "{model}").spec),
        problems=RESULTS.dataset("{dataset}").problems,
        benchmarks=kept_out,
        model=RESULTS.model("{model}").folder,
    output:
        problems=RESULTS.training_data("{dataset}", "{model}").problems,
        card=RESULTS.training_data("{dataset}", "{model}").card,
    log:
        RESULTS.log("training_data", "{dataset}.{model}"),
    wildcard_constraints:
        dataset=re.escape(STUDY.size.training_data),
    conda:
        "../envs/train.yaml"
    threads: SETTINGS.threads("training-data")
    resources:
        **SETTINGS.needs("training-data"),
    params:
        code=code_of("training_data"),
        benchmarks=benchmark_options,
    shell:
        "train_env ngrpo training-data {input.spec:q} --problems {input.problems:q} {params.benchmarks}"
        " --model {input.model:q} --out {output.problems:q} 2>&1 | tee {log:q}"
