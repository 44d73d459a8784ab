"""Estimators, intervals and decisions; knows nothing of files or of the study."""
