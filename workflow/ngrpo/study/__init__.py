"""What is to be run: configuration in, specs out (a run = model × objective × exploration).

Imports no torch: Snakemake, the planner and the report load it on a login node.
"""
