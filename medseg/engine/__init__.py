"""Training: `fit` is the loop, `optim` the optimiser and its schedule, `state` what a checkpoint holds."""
