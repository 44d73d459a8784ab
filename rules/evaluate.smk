# Evaluations: n samples a problem in resumable shards, then grades. A policy's benchmarks that the same tables ask for
# are one job, so that they share one start of the engine; samples of it that are whole stay when others are drawn.
_SETS = list(dict.fromkeys(batch.benchmarks for batch in STUDY.batches))
for _benchmarks in _SETS:

    rule:
        name:
            "sample" if len(_SETS) == 1 else f"sample-{'-'.join(_benchmarks)}"
        input:
            unpack(sample_inputs(_benchmarks)),
            specs=expand(
                f"{R}/evaluations/{{{{system}}}}/{{benchmark}}.spec.json",
                benchmark=_benchmarks,
            ),
        output:
            update(
                expand(
                    f"{R}/evaluations/{{{{system}}}}/{{benchmark}}.samples.{{kind}}",
                    benchmark=_benchmarks,
                    kind=("parquet", "card.json"),
                )
            ),
        log:
            f"{R}/logs/sample/{{system}}/{'-'.join(_benchmarks)}.log",
        wildcard_constraints:
            system=one_of(
                b.system for b in STUDY.batches if b.benchmarks == _benchmarks
            ),
        conda:
            "../envs/train.yaml"
        threads: STUDY.size.threads
        resources:
            **SETTINGS.needs("sample"),
            shard_samples=STUDY.size.shard_samples,
        params:
            version=VERSIONS["sample"],
            neighbors=neighbor_option,
            data=f"{R}/data",
            out=lambda wildcards, output: str(Path(output[0]).parent),
        shell:
            "train_env ngrpo sample {input.specs:q} --model {input.model:q} --data {params.data:q}"
            " {params.neighbors} --shard-samples {resources.shard_samples} --out {params.out:q} 2>&1 | tee {log:q}"


rule grade:
    input:
        samples=f"{R}/evaluations/{{evaluation}}.samples.parquet",
        problems=problems_of,
    output:
        f"{R}/evaluations/{{evaluation}}.grades.parquet",
    log:
        f"{R}/logs/grade/{{evaluation}}.log",
    conda:
        "../envs/workflow.yaml"
    threads: 2
    resources:
        **SETTINGS.needs("grade"),
    params:
        code=fingerprint("grading"),
    shell:
        "workflow_env ngrpo grade {input.samples:q} --problems {input.problems:q} --workers {threads} --out {output:q}"
        " 2>&1 | tee {log:q}"
