"""Dashboard: what people, programs and assistants are shown of all rooms, each only what is theirs.

Here: marts, questions and answers, access, HTTP, MCP and the page. Not here: any decision of its own.
"""
