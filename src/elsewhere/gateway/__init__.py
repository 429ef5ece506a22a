"""The gateway: a Jupyter Server that many front ends share, and whose kernels outlive it."""
