"""Estimators, intervals and decisions, with numpy, scipy and pandas alone; knows nothing of files or of the study."""
