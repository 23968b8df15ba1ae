"""How long a sampled task takes, and whether it runs: timing configurations, and predicting what was not timed.

timing.py → table.py → fitting.py (estimators/, validity.py) → prediction.py → rejection.py
"""
