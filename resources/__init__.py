"""The outside world behind the protocols that `pipelines.stages` and `evals` own. Heavy libraries load lazily."""
