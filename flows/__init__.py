"""Orchestration: the only package that knows Prefect, Dask, processes and the command line.

Everything numerical lives below (`curriculum`, `runtime_model`, `task_generator`, `lopt`) and everything
stored goes through `storage`. This file imports nothing, because `keirin --help` must answer at once.
"""
