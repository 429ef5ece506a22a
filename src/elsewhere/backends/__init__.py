"""Adapters to resource managers, found by the entry point group ``elsewhere.backends``."""
