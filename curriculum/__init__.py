"""When to train on what: phases as data, the learner, its workers' units of work, evaluation and promotion.

Everything here is a pure value or function; disks, clocks and clusters are handed in from `flows`.
"""
