"""How fast a Jupyter kernels API is, ours or another: what ``elsewhere bench`` measures."""
