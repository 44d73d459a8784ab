# Training runs. Checkpoints and metrics are not declared, so a failed or killed job keeps them; the model comes last.
# A cluster's pre-termination signal (SIGTERM) goes to the whole job, and Ctrl-C to all in the terminal: the trainer
# answers them, shell and tee wait.
rule train:
    input:
        unpack(run_inputs),
        spec=spec_of(HERE.run("{run}").spec),
    output:
        directory(RESULTS.run("{run}").model),
    log:
        RESULTS.log("train", "{run}"),
    conda:
        "../envs/train.yaml"
    threads: SETTINGS.threads("train", STUDY.size.threads)
    resources:
        **SETTINGS.needs("train"),
        nodes=nodes_of,
        tasks=tasks_of,
        tensor_parallel=tensor_parallel_of,
        checkpoint_every=STUDY.size.checkpoint_every,
        checkpoints=CHECKPOINTS[STUDY.size.keep_checkpoints],
        tracking=",".join(SETTINGS.tracking) or "none",
    params:
        version=VERSIONS["train"],
        neighbors=neighbor_option,
    shell:
        "trap '' TERM INT; "
        "train_env ngrpo train {input.spec:q} --model {input.model:q} --data {input.data:q}"
        " --validation {input.validation:q} {params.neighbors} --checkpoint-every {resources.checkpoint_every}"
        " --checkpoint-minutes {resources.checkpoint_minutes} --nodes {resources.nodes}"
        " --tensor-parallel {resources.tensor_parallel} --checkpoints {resources.checkpoints}"
        " --tracking {resources.tracking}"
        " --out {output:q} 2>&1 | tee {log:q}"
