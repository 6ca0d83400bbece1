"""Detection: which usage is unusual, how sure that is, and why it is so.

Here: what is learned from the days before, what is compared with it, the explanation and the forecast. Not here: limits that
people set, and whom to tell.
"""
