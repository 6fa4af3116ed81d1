"""How Dagster sees the line: thin assets, each a call of one function of `pipelines.stages` or `evals`."""
