# Training runs. Checkpoints and metrics are not declared, so a failed or killed job keeps them; the model comes last.
# A cluster's pre-termination signal (SIGTERM) goes to the whole job: the trainer answers it, shell and tee wait.
rule train:
    input:
        unpack(run_inputs),
        spec=f"{R}/runs/{{run}}/spec.json",
    output:
        directory(f"{R}/runs/{{run}}/model"),
    log:
        f"{R}/logs/train/{{run}}.log",
    conda:
        "../envs/train.yaml"
    threads: STUDY.size.threads
    resources:
        **SETTINGS.needs("train"),
        nodes=lambda wildcards: layout_of_run(wildcards)[0],
        tensor_parallel=lambda wildcards: layout_of_run(wildcards)[1],
    params:
        version=VERSIONS["train"],
        neighbors=neighbor_option,
        checkpoint_every=STUDY.size.checkpoint_every,
    shell:
        "trap '' TERM; "
        "train_env ngrpo train {input.spec:q} --model {input.model:q} --data {input.data:q}"
        " --validation {input.validation:q} {params.neighbors} --checkpoint-every {params.checkpoint_every}"
        " --checkpoint-minutes {resources.checkpoint_minutes} --nodes {resources.nodes}"
        " --tensor-parallel {resources.tensor_parallel}"
        " --out {output:q} 2>&1 | tee {log:q}"
