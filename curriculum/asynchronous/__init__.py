"""Meta-training without waiting: theta moves whenever a batch of meta-gradients is full."""
