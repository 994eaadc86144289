"""A network over a scan: `windows` cover it, `sliding` computes them one after the other, `stitching` joins them,
`resampling` brings their logits to the scan's own grid, and `outputs` makes a mask of them there.
"""
