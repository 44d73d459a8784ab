# N-GRPO reproduced: the study on one page.
#
#   snakemake --cores 2                              the toy study, to its report
#   snakemake --cores 2 --config scale=smoke data_folder=PATH
#   snakemake --profile slurm --config scale=paper   the paper's study on a cluster
#
# What is compared stands in config/study.yaml, its size in config/scales/{scale}.yaml, machines in profiles.
from snakemake.utils import min_version

min_version("9.0")


include: "rules/common.smk"
include: "rules/evidence.smk"
include: "rules/data.smk"
include: "rules/models.smk"
include: "rules/neighbors.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/elsewhere.smk"
include: "rules/diagnostics.smk"
include: "rules/report.smk"
include: "rules/targets.smk"
include: "rules/cluster.smk"


localrules:
    all,
    dataset,
    model,
    policy,
    predictions,
    analyze,
    notebook,
    report,
    crate,


rule all:
    default_target: True
    input:
        RESULTS.report.page,
        grades_for(*TABLES),
        extra_seeds_of,
