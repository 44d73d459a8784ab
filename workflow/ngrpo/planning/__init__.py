"""What would run, why, and what it costs: before a study is started and while it runs. Imports no torch."""
