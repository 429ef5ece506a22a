"""``python -m elsewhere.cli``."""

from elsewhere.cli import main

main(prog_name="elsewhere")
