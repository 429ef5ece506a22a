"""The figures with their goals, worked out from pairs: one measurement of each side, taken in turn."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum


class Kind(Enum):
    """How ours is compared with stock."""

    RATIO_AT_MOST = "≤ {:g} ×"
    RATIO_AT_LEAST = "≥ {:g} ×"
    MORE_AT_MOST = "≤ +{:g} {}"


@dataclass
class Figure:
    """One line of the table. Without a ``goal`` it is only shown."""

    name: str
    unit: str
    kind: Kind
    goal: float | None = None
    stock: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    summary: Callable[[Sequence[float]], float] = statistics.median
    paired: bool = True
    note: str = ""

    def add(self, stock: float, ours: float) -> None:
        """Take one pair."""
        self.stock.append(stock)
        self.ours.append(ours)

    @property
    def comparisons(self) -> list[float]:
        """Ours against stock: one value for each pair, or one of all where single pairs mean nothing."""
        pairs = list(zip(self.stock, self.ours, strict=False))
        if not self.paired:
            pairs = [(self.summary(self.stock), self.summary(self.ours))] if pairs else []
        if self.kind is Kind.MORE_AT_MOST:
            return [ours - stock for stock, ours in pairs]
        return [ours / stock for stock, ours in pairs if stock]

    @property
    def result(self) -> tuple[float, float, float]:
        """The median of the comparisons with its quartiles: lower, median, upper."""
        values = self.comparisons
        if len(values) < 2:
            only = values[0] if values else math.nan
            return only, only, only
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return low, middle, high

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if self.goal is None:
            return None
        middle = self.result[1]
        if self.kind is Kind.RATIO_AT_LEAST:
            return middle >= self.goal
        return middle <= self.goal

    @property
    def cells(self) -> tuple[str, str, str, str, str, str]:
        """The line as text: name, stock, ours, comparison, goal, result."""
        goal = self.kind.value.format(self.goal, self.unit) if self.goal is not None else "–"
        reached = {None: "–", True: "ok", False: "missed"}[self.reached]
        name = f"{self.name} ({self.note})" if self.note else self.name
        stock, ours = self._amount(self.stock), self._amount(self.ours)
        return name, stock, ours, self._comparison(), goal, reached

    def _amount(self, values: Sequence[float]) -> str:
        return f"{short(self.summary(values))} {self.unit}" if values else "–"

    def _comparison(self) -> str:
        low, middle, high = self.result
        if self.kind is Kind.MORE_AT_MOST:
            text, spread = f"{middle:+.2f} {self.unit}", f"{low:+.2f} … {high:+.2f}"
        else:
            text, spread = f"{middle:.2f} ×", f"{low:.2f} … {high:.2f}"
        return f"{text} ({spread})" if len(self.comparisons) > 1 else text


def percentile_99(values: Sequence[float]) -> float:
    """Return the value that one in a hundred exceeds."""
    return statistics.quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else values[0]


def short(value: float) -> str:
    """Return a number with three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
