# Evaluations: n samples a problem in resumable shards, then grades. Benchmarks that share a start of the engine are one
# job, and one rule a set of benchmarks (ngrpo.study.batches); samples that are whole stay when others are drawn.


for _rule, _batch in {batch.rule: batch for batch in BATCHES}.items():

    rule:
        name:
            _rule
        input:
            unpack(policy_inputs),
            specs=specs_of(_batch.benchmarks),
            problems=[RESULTS.dataset(b).problems for b in _batch.benchmarks],
        output:
            update(of_system(_batch.benchmarks, "samples", "samples_card")),
        log:
            RESULTS.log("sample", f"{{system}}/{_batch.joined}"),
        wildcard_constraints:
            system=one_of(batch.system for batch in BATCHES if batch.rule == _rule),
        conda:
            "../envs/train.yaml"
        threads: SETTINGS.threads("sample", STUDY.size.threads)
        resources:
            **SETTINGS.needs("sample"),
            shard_samples=STUDY.size.shard_samples,
        params:
            version=VERSIONS["sample"],
            neighbors=neighbor_option,
            data=folder_of_problems,
            out=folder_of_samples,
        shell:
            "train_env ngrpo sample {input.specs:q} --model {input.model:q} --data {params.data:q}"
            " {params.neighbors} --shard-samples {resources.shard_samples} --out {params.out:q} 2>&1 | tee {log:q}"


rule grade:
    input:
        samples=RESULTS.evaluation("{evaluation}").samples,
        problems=problems_of,
    output:
        RESULTS.evaluation("{evaluation}").grades,
    log:
        RESULTS.log("grade", "{evaluation}"),
    conda:
        "../envs/workflow.yaml"
    threads: SETTINGS.threads("grade", 2)
    resources:
        **SETTINGS.needs("grade"),
    params:
        code=code_of("grade"),
        settings=grading_options,
    shell:
        "workflow_env ngrpo grade {input.samples:q} --problems {input.problems:q} {params.settings}"
        " --workers {threads} --out {output:q}"
        " 2>&1 | tee {log:q}"
