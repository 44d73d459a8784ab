"""The exact nearest-neighbor search: a bounded filter over all pairs, float64 on the few that it can't rule out."""
