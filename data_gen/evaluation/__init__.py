"""What a model is asked, how its answers are scored, and the report. No JAX: a model comes in as lm-evaluation-harness's `LM`.

suites.py what is run → find.py finds it and its data (local_data.py) → run.py asks the model (backends.py: those of others) →
scores.py, statistics.py → results.py → report.py. judge.py has a teacher compare or mark answers; leaks.py looks for what is asked
in the training data. tasks/ and shipped/: tasks and data of our own.
"""
