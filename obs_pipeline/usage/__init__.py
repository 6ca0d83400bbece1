"""Usage: from whatever a source wrote to exact hourly and daily sums.

Here: the canonical event and all that becomes one, prices, duplicates, aggregates, what a seller billed. Not here: whether an
amount is unusual, allowed or worth telling.
"""
