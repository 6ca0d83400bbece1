"""Policy: the limits that people set, which of them hold where, and where budgets stand.

Here: files, resolution with provenance, sync to what enforces them. Not here: whether usage is unusual, and whom to tell.
"""
