"""A run: `study` settles what is learned from what, of which `folds` holds some back; `prepared` and `loader` bring the batches,
`build` makes network and loss, `trials` measures a few steps, `learning` fits, `inner_split` makes choices, `held_out` judges, and
`runs` is all of it.
"""
