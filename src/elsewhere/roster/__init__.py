"""Who is out there, kept in memory: what is wanted of one cluster, against what is seen there."""

from elsewhere.roster.driver import Roster
from elsewhere.roster.entry import Entry, Stage, Times

__all__ = ["Entry", "Roster", "Stage", "Times"]
