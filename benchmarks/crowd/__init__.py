"""A manager whose jobs are simulated agents, for measurements at scale: see ``manager``."""
