"""What a learned optimizer looks at: one definition of each accumulator and each feature.

An architecture is a composition of these; an ablation is a configuration with a name left out.
"""
