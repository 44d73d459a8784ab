"""What a rule calls: training data, base models, neighbor tables, samples, diagnostics of mixing."""
