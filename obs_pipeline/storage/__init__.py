"""Storage: how bytes reach a disk, a database or an object store.

Here: the lake, the ledger, the engine, locks, proofs over tables. Not here: what a row means.
"""
