"""Whether a study is what it says: status, compliance, fidelity, provenance, time and hardware."""
