"""The answers: one function a question, each from one pinned set of versions and one look at the ledger.

Here: the SQL over what the snapshot shows and the arithmetic of the answers. Whose rows they are was decided before: a reader
shows a caller's own rows only. No cache, no transport, no clock: a timeframe ends with the last computed day, so that the
same data gives the same answer whenever it is asked.
"""
