"""Alerting: from findings to incidents, and from incidents to messages that arrive once.

Here: who is told, by which route, and what keeps quiet; delivery. Not here: what a finding is; it comes in as a signal.
"""
