"""The paper's mathematics: random streams, sampling, neighbors, input mixers, records, objectives.

Imports torch and numpy, and nothing of ours but the error type: engines and trainers call it, never the reverse.
"""
