"""Fully connected conditional random fields: `dense_crf` refines probabilities, `mean_field` holds the steps, `lattice` the sums
over all pairs.
"""
