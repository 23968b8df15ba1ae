"""What architectures compute for one stack of tensors, or any piece of one: the per-parameter part of an update.

An architecture (`lopt.architectures`) has the configuration, the weights and the state, and calls a rule per stack.
"""
