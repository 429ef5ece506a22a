"""Run Jupyter kernels on the machines that a resource manager owns."""

__version__ = "0.1.0.dev0"
